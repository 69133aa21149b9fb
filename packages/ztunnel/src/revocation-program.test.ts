/** CRL_PATH from outside: the shipped program, two pods, a volume whose symlinks are swapped, and connections that live meanwhile. */
import { once } from "node:events";
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type SeqpacketConnection, SeqpacketServer } from "@fairway/linux";
import { encodeZdsRequest } from "@fairway/protocol";
import test from "ava";
import { eventually, readAll } from "./test-mesh.ts";
import { skippedWithoutNamespaces, twoPods } from "./test-pods.ts";
import { enrol, inPod, nodeNamespace, twoPodMesh, ztunnel } from "./test-program.ts";
import { skippedWithoutOpenssl, TestRevocation } from "./test-revocation.ts";

const forever = new AbortController().signal;

test.serial("a list that comes while connections live ends them at both ends, and no new one begins", async (t) => {
  if (skippedWithoutNamespaces(t) || skippedWithoutOpenssl(t)) return;
  const ca = new TestRevocation(t);
  const { a, b } = twoPods(t);
  const directory = mkdtempSync(join(tmpdir(), "fwztunnel-"));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  writeFileSync(join(directory, "mesh.yaml"), twoPodMesh(a.ip, b.ip));
  const volume = join(directory, "crl");
  const publish = (version: string, list: string): void => {
    mkdirSync(join(volume, version), { recursive: true });
    writeFileSync(join(volume, version, "crl.pem"), list);
    symlinkSync(version, join(volume, "..data_tmp"));
    renameSync(join(volume, "..data_tmp"), join(volume, "..data"));
  };
  publish("..one", ca.ofRoot());
  symlinkSync("..data/crl.pem", join(volume, "crl.pem"));
  const { promise, resolve } = Promise.withResolvers<SeqpacketConnection>();
  const server = await SeqpacketServer.listen(join(directory, "zds.sock"), resolve);
  t.teardown(() => server.close());
  const { child, output } = ztunnel(t, nodeNamespace(t), {
    XDS_ADDRESS: "",
    LOCAL_XDS_PATH: join(directory, "mesh.yaml"),
    LOCAL_CA_PATH: ca.directory,
    INPOD_UDS: join(directory, "zds.sock"),
    ISTIO_META_DNS_CAPTURE: "false",
    LOG_FORMAT: "json",
    CRL_PATH: join(volume, "crl.pem"),
    COMPLIANCE_POLICY: "pqc",
  });
  const early = await Promise.race([promise, once(child, "close").then(() => undefined)]);
  if (early === undefined) return t.fail(output());
  await early.receive({ signal: forever });
  t.is(await enrol(early, "a", a), "");
  t.is(await enrol(early, "b", b), "");
  await early.send(encodeZdsRequest({ kind: "snapshot-sent" }), [], { signal: forever });
  await early.receive({ signal: forever });
  await (await inPod(t, b)).listen({
    host: "0.0.0.0",
    port: 8_000,
    mark: 0,
    reusePort: false,
    transparent: false,
    backlog: 16,
    onConnection: (socket) => void socket.resume().pipe(socket),
  });
  const client = await inPod(t, a);
  const dial = async () => (await client.dial({ host: b.ip, port: 8_000, mark: 0, timeoutMs: 5_000, signal: forever })).socket;
  const living = await Promise.all(Array.from({ length: 4 }, dial));
  for (const socket of living) {
    t.teardown(() => socket.destroy());
    socket.on("error", () => {});
    socket.resume().write("hello");
    await once(socket, "data");
  }
  const closed = living.map((socket) => {
    socket.once("end", () => socket.end());
    return once(socket, "close");
  });

  publish("..two", ca.ofRoot(ca.signerSerial));
  await Promise.all(closed);
  const access = (message: string) =>
    output()
      .split("\n")
      .filter((line) => line.startsWith("{") && line.endsWith("}"))
      .map((line) => JSON.parse(line))
      .filter(({ scope, message: said }) => scope === "access" && said === message);
  await eventually(t, () => access("connection complete").length === 8);
  for (const direction of ["inbound", "outbound"]) {
    const lines = access("connection complete").filter((line) => line.direction === direction);
    t.deepEqual(
      lines.map(({ error }) => error),
      Array.from({ length: 4 }, () => "connection closed: peer certificate revoked by CRL"),
      output(),
    );
  }
  const late = await dial();
  late.on("error", () => {});
  await t.throwsAsync(readAll(late.resume()));
  await eventually(t, () => access("connection complete").some(({ error }) => String(error).includes("was revoked")));
});
