/** Applications that choose the mesh by address, through running pods. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { parseIp } from "@fairway/model";
import test, { type ExecutionContext } from "ava";
import { application, client, eventually, loopbackAddresses, policy, readAll, service, TestMesh, type TestMeshOptions, workload } from "./test-mesh.ts";

const at = loopbackAddresses();
const ports = { outbound: 0, plaintext: 0, hbone: 15_008, socks5: 0, httpConnect: 0, admin: 0, metrics: 0, readiness: 0 };

/** Pod a with both ports, pod b with an application behind the service `web`. */
async function start(t: ExecutionContext, options: Partial<TestMeshOptions> & { serve?: (socket: Socket) => void } = {}) {
  const app = await application(t, at(2), options.serve ?? ((socket) => void socket.pipe(socket)));
  const web = service("web", "10.96.0.1", 80, app.port, [workload("b", at(2))]);
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), ...web.workloads], services: [web.service] }, ...options });
  await mesh.pod("b", at(2));
  const a = await mesh.pod("a", at(1), undefined, ["socks5", "http-connect", "hbone"], { askingHost: at(1), ports });
  const dial = (kind: "socks5" | "http-connect") => client(t, at(1), a.port(kind) ?? 0);
  return { mesh, app, a, socks: () => dial("socks5"), http: () => dial("http-connect") };
}

const greeting = Buffer.of(5, 1, 0);
const chosen = Buffer.of(5, 0);
const reply = (code: number): Buffer => Buffer.of(5, code, 0, 1, 0, 0, 0, 0, 0, 0);
const portBytes = (port: number): Buffer => Buffer.of(port >> 8, port & 255);
const byName = (name: string, port: number, command = 1): Buffer =>
  Buffer.concat([Buffer.of(5, command, 0, 3, name.length), Buffer.from(name), portBytes(port)]);
const byIpv4 = (ip: string, port: number): Buffer => Buffer.concat([Buffer.of(5, 1, 0, 1, ...ip.split(".").map(Number)), portBytes(port)]);

/** Exactly as many bytes; the rest stays. */
async function take(socket: Socket, size: number): Promise<Buffer> {
  let read = Buffer.alloc(0);
  while (read.length < size) {
    socket.resume();
    const [chunk] = await once(socket, "data");
    socket.pause();
    read = Buffer.concat([read, chunk]);
  }
  if (read.length > size) socket.unshift(read.subarray(size));
  return read.subarray(0, size);
}

/** Everything until the end. */
function rest(socket: Socket): Promise<string> {
  const all = readAll(socket);
  socket.resume();
  return all.then(String);
}

async function untilClosed(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.resume();
  if (!socket.destroyed) {
    socket.once("end", () => socket.end());
    await once(socket, "close");
  }
  return Buffer.concat(chunks);
}

test.serial("SOCKS5 by IPv4 address: the tunnel of the pod, its identity, its log line", async (t) => {
  const { mesh, app, socks } = await start(t);
  const socket = await socks();
  socket.write(greeting);
  t.deepEqual(await take(socket, 2), chosen);
  socket.write(byIpv4(at(2), app.port));
  t.deepEqual(await take(socket, 10), reply(0));
  socket.end("through socks");
  t.is(await rest(socket), "through socks");
  await eventually(t, () => mesh.accessLines().filter((line) => line.includes("complete")).length === 2);
  const outbound = mesh.accessLines().find((line) => line.includes('direction="outbound"')) ?? "";
  t.regex(outbound, /src\.identity="spiffe:\/\/cluster\.local\/ns\/default\/sa\/a"/);
  t.regex(await mesh.registry.metrics(), /istio_tcp_connections_opened_total\{reporter="source",source_workload="a".*connection_security_policy="mutual_tls"/);
});

test.serial("SOCKS5 by name: a name of the mesh leads to its service, written in any case and with a dot at the end", async (t) => {
  const { mesh, socks } = await start(t);
  for (const name of ["web.default.svc.cluster.local", "WEB.default.svc.cluster.local."]) {
    const socket = await socks();
    // All at once, as clients do that expect no refusal; the bytes of the connection right behind.
    socket.write(Buffer.concat([greeting, byName(name, 80), Buffer.from("early")]));
    t.deepEqual(await take(socket, 12), Buffer.concat([chosen, reply(0)]));
    socket.end();
    t.is(await rest(socket), "early");
  }
  await eventually(
    t,
    () =>
      mesh.accessLines().filter((line) => /connection complete\t.*dst\.service="web\.default\.svc\.cluster\.local".*direction="outbound"/.test(line)).length ===
      2,
  );
});

test.serial("a name that is none of the mesh is the resolver's, and reached as if there were no mesh", async (t) => {
  const { app, mesh } = await start(t);
  const parts = { ...mesh.parts, lookup: async (hostname: string) => (hostname === "outside.example" ? [at(2)] : []) };
  Object.assign(mesh.parts, parts);
  const a = await mesh.pod("a", at(3), undefined, ["socks5"], { askingHost: at(3), ports });
  const socket = await client(t, at(3), a.port("socks5") ?? 0);
  socket.write(Buffer.concat([greeting, byName("outside.example", app.port)]));
  t.deepEqual(await take(socket, 12), Buffer.concat([chosen, reply(0)]));
  const lost = await client(t, at(3), a.port("socks5") ?? 0);
  lost.write(Buffer.concat([greeting, byName("nowhere.example", app.port)]));
  t.deepEqual(await take(lost, 12), Buffer.concat([chosen, reply(4)]));
  t.is((await untilClosed(lost)).length, 0);
});

test.serial("IPv6 addresses are asked for as bytes, and as text in brackets", async (t) => {
  const { mesh, socks, http } = await start(t);
  mesh.mesh.apply({ services: [{ ...service("six", "10.96.0.6", 80, 1, []).service, vips: [{ network: "" as never, ip: parseIp("fd00::6") }] }] });
  const socket = await socks();
  socket.write(Buffer.concat([greeting, Buffer.of(5, 1, 0, 4, 0xfd, ...new Array(14).fill(0), 6), portBytes(80)]));
  // The service has no endpoint: known, and refused as that.
  t.deepEqual(await take(socket, 12), Buffer.concat([chosen, reply(1)]));
  const other = await http();
  other.write("CONNECT [fd00::6]:80 HTTP/1.1\r\n\r\n");
  t.regex((await untilClosed(other)).toString(), /^HTTP\/1\.1 502 /);
  await eventually(t, () => mesh.accessLines().filter((line) => line.includes("no healthy upstream: default/six")).length === 2);
});

for (const [what, bytes, expected] of [
  ["BIND", Buffer.concat([greeting, byName("x", 80, 2)]), Buffer.concat([chosen, reply(7)])],
  ["UDP ASSOCIATE", Buffer.concat([greeting, byName("x", 80, 3)]), Buffer.concat([chosen, reply(7)])],
  ["an unknown address type", Buffer.concat([greeting, Buffer.of(5, 1, 0, 9, 1, 2)]), Buffer.concat([chosen, reply(7)])],
  ["port 0", Buffer.concat([greeting, byName("web", 0)]), Buffer.concat([chosen, reply(7)])],
  ["an empty name", Buffer.concat([greeting, byName("", 80)]), Buffer.concat([chosen, reply(7)])],
  ["a name with control characters", Buffer.concat([greeting, byName("a\r\nb", 80)]), Buffer.concat([chosen, reply(7)])],
  ["another version in the request", Buffer.concat([greeting, Buffer.of(4, 1, 0, 1)]), Buffer.concat([chosen, reply(7)])],
  ["only password authentication", Buffer.of(5, 1, 2), Buffer.of(5, 0xff)],
  ["no method at all", Buffer.of(5, 0), Buffer.of(5, 0xff)],
  ["SOCKS4", Buffer.of(4, 1, 0, 80, 10, 0, 0, 1, 0), Buffer.alloc(0)],
  ["HTTP", Buffer.from("GET / HTTP/1.1\r\n\r\n"), Buffer.alloc(0)],
] as const) {
  test.serial(`SOCKS5: ${what} is refused with its code, and the connection ends`, async (t) => {
    const { mesh, socks, a } = await start(t);
    const socket = await socks();
    const closed = untilClosed(socket);
    socket.write(bytes);
    t.deepEqual(await closed, expected);
    await eventually(t, () => mesh.accessLines().length === 1 && a.size === 0);
    t.regex(mesh.accessLines()[0] ?? "", /warn\taccess\tconnection failed/);
  });
}

for (const [what, request, expected] of [
  ["another method", "GET http://web/ HTTP/1.1\r\nhost: web\r\n\r\n", /^HTTP\/1\.1 405 .*\r\nallow: CONNECT\r\n/],
  ["no HTTP", "hello\r\n\r\n", /^HTTP\/1\.1 400 /],
  ["a destination without a port", "CONNECT web HTTP/1.1\r\n\r\n", /^HTTP\/1\.1 400 /],
  ["a port that is none", "CONNECT web:70000 HTTP/1.1\r\n\r\n", /^HTTP\/1\.1 400 /],
  ["a header that is none", "CONNECT web:80 HTTP/1.1\r\nno colon\r\n\r\n", /^HTTP\/1\.1 400 /],
  ["a folded header", "CONNECT web:80 HTTP/1.1\r\na: b\r\n c\r\n\r\n", /^HTTP\/1\.1 400 /],
  ["a name with a NUL", "CONNECT a\0b:80 HTTP/1.1\r\n\r\n", /^HTTP\/1\.1 400 /],
  ["too long a head", `CONNECT web:80 HTTP/1.1\r\na: ${"x".repeat(9_000)}`, /^HTTP\/1\.1 431 /],
] as const) {
  test.serial(`HTTP CONNECT: ${what} is refused with its status, and the connection ends`, async (t) => {
    const { http, a } = await start(t);
    const socket = await http();
    const closed = untilClosed(socket);
    socket.write(request);
    t.regex((await closed).toString(), expected);
    await eventually(t, () => a.size === 0);
  });
}

test.serial("HTTP CONNECT carries what came with the request, and half-closes", async (t) => {
  const { http } = await start(t);
  const socket = await http();
  socket.end("CONNECT web.default.svc.cluster.local:80 HTTP/1.1\r\nhost: x\r\nuser-agent: y\r\n\r\nearly");
  t.is(await rest(socket), "HTTP/1.1 200 Connection established\r\n\r\nearly");
});

test.serial("what the destination's policy refuses is said to the client before any byte of it arrives", async (t) => {
  let reached = 0;
  const { mesh, http, socks } = await start(t, { serve: () => void reached++ });
  mesh.mesh.apply({ policies: [policy("deny", { principals: [{ kind: "exact", value: "cluster.local/ns/default/sa/a" }] })] });
  const one = await http();
  one.write("CONNECT web.default.svc.cluster.local:80 HTTP/1.1\r\n\r\nsecret");
  t.regex((await untilClosed(one)).toString(), /^HTTP\/1\.1 403 Forbidden\r\nproxy-status: ztunnel; error=connection_refused; details="HBONE_REFUSED"/);
  const two = await socks();
  two.write(Buffer.concat([greeting, byName("web.default.svc.cluster.local", 80)]));
  t.deepEqual(await untilClosed(two), Buffer.concat([chosen, reply(2)]));
  t.is(reached, 0);
});

test.serial("an application that refuses is said to refuse", async (t) => {
  const { mesh, socks } = await start(t);
  mesh.mesh.apply({ workloads: [workload("plain", at(4), { tunnelProtocol: "none" })] });
  const socket = await socks();
  socket.write(Buffer.concat([greeting, byIpv4(at(4), 9)]));
  t.deepEqual(await untilClosed(socket), Buffer.concat([chosen, reply(5)]));
});

test.serial("our own ports are no destination", async (t) => {
  const { mesh, http } = await start(t);
  const socket = await http();
  socket.write("CONNECT 127.0.0.1:15008 HTTP/1.1\r\n\r\n");
  t.regex((await untilClosed(socket)).toString(), /^HTTP\/1\.1 502 /);
  await eventually(t, () => mesh.accessLines().some((line) => line.includes("recursive call")));
});

test.serial("a client that sends byte by byte is served, one that leaves or resets in the middle harms nobody", async (t) => {
  const { socks, a } = await start(t);
  const slow = await socks();
  for (const byte of Buffer.concat([greeting, byName("web.default.svc.cluster.local", 80)])) {
    slow.write(Buffer.of(byte));
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.deepEqual(await take(slow, 12), Buffer.concat([chosen, reply(0)]));
  for (const leave of [(socket: Socket) => socket.end(), (socket: Socket) => socket.resetAndDestroy()]) {
    const socket = await socks();
    socket.write(Buffer.of(5));
    leave(socket);
  }
  slow.end("still here");
  t.is(await rest(slow), "still here");
  await eventually(t, () => a.size === 0);
});

/** A small generator of its own, so that a failure can be told by its seed. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state % below;
  };
}

for (const kind of ["socks5", "http-connect"] as const) {
  test.serial(`whatever bytes come, ${kind} answers or hangs up, and nothing is left`, async (t) => {
    const { a, socks, http } = await start(t);
    const valid = kind === "socks5" ? Buffer.concat([greeting, byName("web", 80)]) : Buffer.from("CONNECT web:80 HTTP/1.1\r\na: b\r\n\r\n");
    for (let seed = 0; seed < 120; seed++) {
      const below = random(seed);
      const bytes = Buffer.from(valid);
      for (let flips = below(4); flips >= 0; flips--) bytes[below(bytes.length)] = below(256);
      const socket = await (kind === "socks5" ? socks() : http());
      const closed = untilClosed(socket);
      const cut = below(bytes.length + 1);
      socket.write(bytes.subarray(0, cut));
      await new Promise((resolve) => setImmediate(resolve));
      if (below(4) === 0) socket.resetAndDestroy();
      else socket.end(bytes.subarray(cut));
      await closed;
    }
    await eventually(t, () => a.size === 0);
  });
}

test.serial("clients that only hold their place are bounded", async (t) => {
  const { mesh } = await start(t);
  const a = await mesh.pod("a", at(5), undefined, ["socks5"], { askingHost: at(5), ports, maxPendingConnections: 2 });
  const hold = async (): Promise<Socket> => {
    const socket = connect({ host: at(5), port: a.port("socks5") ?? 0 });
    socket.on("error", () => {});
    t.teardown(() => socket.destroy());
    await once(socket, "connect");
    return socket;
  };
  const holders = [await hold(), await hold()];
  await eventually(t, () => holders.every(({ destroyed }) => !destroyed));
  const third = connect({ host: at(5), port: a.port("socks5") ?? 0 });
  const [error] = await once(third, "error");
  t.is(error.code, "ECONNRESET");
  t.regex(await mesh.registry.metrics(), /fairway_ztunnel_overload_total\{bound="pending-explicit"\} 1\n/);
});

for (const [what, options] of [
  ["SOCKS5 with a name", (kind: string) => ["--socks5-hostname", kind]],
  ["HTTP CONNECT", (kind: string) => ["--proxytunnel", "--proxy", `http://${kind}`]],
] as const) {
  test.serial(`curl speaks ${what} to it`, async (t) => {
    const page = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    const { a } = await start(t, { serve: (socket) => socket.once("data", () => socket.end(page)) });
    const port = a.port(what === "HTTP CONNECT" ? "http-connect" : "socks5") ?? 0;
    const args = ["--silent", "--show-error", "--noproxy", "", ...options(`${at(1)}:${port}`), "http://web.default.svc.cluster.local/"];
    const curl = spawn("curl", args, { stdio: ["ignore", "pipe", "inherit"], env: { PATH: process.env["PATH"] ?? "" } });
    const missing = await Promise.race([once(curl, "error").then(() => true), once(curl, "spawn").then(() => false)]);
    if (missing) {
      t.log(`SKIPPED (needs curl): ${t.title}`);
      t.pass();
      return;
    }
    let read = "";
    curl.stdout.on("data", (chunk) => {
      read += String(chunk);
    });
    const [code] = await once(curl, "close");
    t.deepEqual([code, read], [0, "hello"]);
  });
}
