import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type SeqpacketConnection, SeqpacketServer, selfTest } from "@fairway/linux";
import { encodeZdsRequest } from "@fairway/protocol";
import test from "ava";
import { eventually, readAll } from "./test-mesh.ts";
import { skippedWithoutNamespaces, twoPods } from "./test-pods.ts";
import { enrol, inPod, nodeNamespace, twoPodMesh, ztunnel } from "./test-program.ts";

const forever = new AbortController().signal;
const main = fileURLToPath(new URL("./main.js", import.meta.url));

test.serial("the shipped program carries a captured connection between two pods of a node, and drains on SIGTERM", async (t) => {
  if (skippedWithoutNamespaces(t)) return;
  await selfTest();
  const { a, b } = twoPods(t);
  const directory = mkdtempSync(join(tmpdir(), "fwztunnel-"));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  writeFileSync(join(directory, "mesh.yaml"), twoPodMesh(a.ip, b.ip));
  const { promise, resolve } = Promise.withResolvers<SeqpacketConnection>();
  const server = await SeqpacketServer.listen(join(directory, "zds.sock"), resolve);
  t.teardown(() => server.close());
  const { child, output } = ztunnel(t, nodeNamespace(t), {
    XDS_ADDRESS: "",
    LOCAL_XDS_PATH: join(directory, "mesh.yaml"),
    FAKE_CA: "true",
    INPOD_UDS: join(directory, "zds.sock"),
    ISTIO_META_DNS_CAPTURE: "false",
    LOG_FORMAT: "json",
  });
  const exited = once(child, "close");
  const early = await Promise.race([promise, exited.then(() => undefined)]);
  if (early === undefined) return t.fail(output());
  await early.receive({ signal: forever });
  t.is(await enrol(early, "a", a), "");
  t.is(await enrol(early, "b", b), "");
  await early.send(encodeZdsRequest({ kind: "snapshot-sent" }), [], { signal: forever });
  await early.receive({ signal: forever });

  let seen: string | undefined;
  const serve = (socket: Socket): void => {
    seen = socket.remoteAddress;
    socket.resume().pipe(socket);
  };
  await (await inPod(t, b)).listen({ host: "0.0.0.0", port: 8_000, mark: 0, reusePort: false, transparent: false, backlog: 16, onConnection: serve });
  const { socket } = await (await inPod(t, a)).dial({ host: b.ip, port: 8_000, mark: 0, timeoutMs: 5_000, signal: forever });
  t.teardown(() => socket.destroy());
  socket.resume();
  socket.write("hello");
  await once(socket, "data");
  t.is(seen, a.ip);

  child.kill("SIGTERM");
  await eventually(t, () => output().includes('"draining"'));
  const rest = readAll(socket);
  socket.end(" and bye");
  t.is((await rest).toString(), " and bye");
  const [code] = await exited;
  t.is(code, 0, output());
  const lines = output()
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const access = lines.filter(({ scope, message }) => scope === "access" && message === "connection complete");
  t.deepEqual(access.map(({ direction }) => direction).sort(), ["inbound", "outbound"]);
  t.is(access[0]["src.identity"], "spiffe://cluster.local/ns/default/sa/a");
  // The listeners are of both families, and the tunnel itself came from the pod.
  for (const line of access) t.is(line["src.addr"].split(":")[0], a.ip, line.direction);
});

test.serial("a wrong environment ends the program with a code and every bad name", async (t) => {
  const child = spawn(process.execPath, [main], { env: { PACKET_MARK: "x", KEEPALIVE_TIME: "y" } });
  t.teardown(() => child.kill("SIGKILL"));
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += String(chunk);
  });
  const [code] = await once(child, "close");
  t.is(code, 1);
  t.regex(output, /PACKET_MARK.*KEEPALIVE_TIME|KEEPALIVE_TIME.*PACKET_MARK/);
});

test.serial("version and help print and succeed, anything else is an error of use", async (t) => {
  for (const [command, expected] of [
    ["version", 0],
    ["help", 0],
    ["serve", 2],
  ] as const) {
    const child = spawn(process.execPath, [main, command], { stdio: "ignore" });
    const [code] = await once(child, "close");
    t.is(code, expected, command);
  }
});

test("the soft limit of descriptors becomes the hard one", (t) => {
  const script = "console.log(/Max open files\\s+(\\d+)\\s+(\\d+)/.exec(require('fs').readFileSync('/proc/self/limits', 'utf8')).slice(1).join(' '))";
  const limits = execFileSync("sh", ["-c", 'ulimit -Sn 64; exec "$0" -e "$1"', process.execPath, script], { encoding: "utf8" });
  const [soft, hard] = limits.trim().split(" ");
  t.is(soft, hard);
});
