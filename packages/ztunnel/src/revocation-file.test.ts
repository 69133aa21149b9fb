import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createLogger, errorCode, ManualClock, systemClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { RevocationFile } from "./revocation-file.ts";
import { eventually } from "./test-mesh.ts";
import { skippedWithoutOpenssl, TestRevocation } from "./test-revocation.ts";

/** A volume as the kubelet keeps it: what changes is where `..data` leads. */
class Volume {
  readonly path: string;
  #version = 0;

  constructor(t: ExecutionContext) {
    this.path = mkdtempSync(join(tmpdir(), "fwztunnel-crl-"));
    t.teardown(() => rmSync(this.path, { recursive: true, force: true }));
    symlinkSync("..data/crl.pem", this.file);
  }

  get file(): string {
    return join(this.path, "crl.pem");
  }

  swap(content: string): void {
    const version = `..v${++this.#version}`;
    mkdirSync(join(this.path, version));
    writeFileSync(join(this.path, version, "crl.pem"), content);
    symlinkSync(version, join(this.path, "..data_tmp"));
    renameSync(join(this.path, "..data_tmp"), join(this.path, "..data"));
  }
}

async function opened(t: ExecutionContext, path: string, clock = systemClock): Promise<{ file: RevocationFile; lines: string[]; revoked: () => string[] }> {
  const lines: string[] = [];
  const file = await RevocationFile.open({ path, clock, log: createLogger("test", { write: (line) => void lines.push(line) }) });
  t.teardown(() => file[Symbol.asyncDispose]());
  return { file, lines, revoked: () => file.lists.current.flatMap(({ serialNumbers }) => [...serialNumbers]) };
}

test("a swap of the volume's symlinks is seen", async (t) => {
  if (skippedWithoutOpenssl(t)) return;
  const ca = new TestRevocation(t);
  const volume = new Volume(t);
  volume.swap(ca.ofSigner("0A"));
  const { revoked } = await opened(t, volume.file);
  t.deepEqual(revoked(), ["a"]);
  volume.swap(ca.ofSigner("0A", "0B") + ca.ofRoot("0C"));
  await eventually(t, () => revoked().join() === "a,b,c");
  volume.swap("");
  await eventually(t, () => revoked().length === 0);
});

test("a file that is not there yet is warned of, and found later by the slow look", async (t) => {
  if (skippedWithoutOpenssl(t)) return;
  const ca = new TestRevocation(t);
  const directory = join(mkdtempSync(join(tmpdir(), "fwztunnel-crl-")), "later");
  t.teardown(() => rmSync(join(directory, ".."), { recursive: true, force: true }));
  const clock = new ManualClock();
  const { lines, revoked } = await opened(t, join(directory, "crl.pem"), clock);
  t.true(lines.some((line) => line.includes("not there yet")));
  mkdirSync(directory);
  writeFileSync(join(directory, "crl.pem"), ca.ofSigner("0A"));
  await clock.advance(30_000);
  await eventually(t, () => revoked().join() === "a");
});

test("what is no list stops the start", async (t) => {
  const volume = new Volume(t);
  volume.swap("-----BEGIN X509 CRL-----\nno list\n-----END X509 CRL-----\n");
  const error = await t.throwsAsync(opened(t, volume.file));
  t.is(errorCode(error), "ZTUNNEL_CRL");
  t.regex(error?.message ?? "", /CRL_PATH .*unset CRL_PATH/);
  t.is(errorCode(await t.throwsAsync(opened(t, volume.path))), "ZTUNNEL_CRL", "a directory");
});

test("what is no list later, or no file any more, leaves the last good one in force and is said once", async (t) => {
  if (skippedWithoutOpenssl(t)) return;
  const ca = new TestRevocation(t);
  const volume = new Volume(t);
  volume.swap(ca.ofSigner("0A"));
  const clock = new ManualClock();
  const { lines, revoked } = await opened(t, volume.file, clock);
  const said = (what: string): number => lines.filter((line) => line.includes("error") && line.includes(what)).length;
  volume.swap("no list");
  await clock.advance(30_000);
  await eventually(t, () => said("cannot be used") === 1);
  t.deepEqual(revoked(), ["a"]);
  rmSync(volume.file);
  await clock.advance(60_000);
  await eventually(t, () => said("are gone") === 1);
  t.is(said("cannot be used"), 1);
  t.deepEqual(revoked(), ["a"]);
  writeFileSync(volume.file, ca.ofSigner("0B"));
  await clock.advance(30_000);
  await eventually(t, () => revoked().join() === "b");
});
