/** Peers that prove who they are and then break the rules: frames written by hand over TLS, names made to confuse, at a pod that serves others. */
import { once } from "node:events";
import { connect as tcpConnect } from "node:net";
import { type TLSSocket, connect as tlsConnect } from "node:tls";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { parseSpiffeId, type SpiffeId } from "@fairway/model";
import { type Authority, createMeshTls, generateKeyPair, localCaClient, SecretManager } from "@fairway/pki";
import { silentLogger, systemClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { application, client, eventually, loopbackAddresses, readAll, TestMesh, workload } from "./test-mesh.ts";

const at = loopbackAddresses();
const types = { headers: 1, rstStream: 3, settings: 4, ping: 6, windowUpdate: 8, continuation: 9 } as const;
const [endStream, endHeaders] = [1, 4];
const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
const mebibyte = 1024 * 1024;
const mostMegabytes = 8;
setFlagsFromString("--expose-gc");
const collect: () => void = runInNewContext("gc");

function frame(type: number, bits: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(9);
  header.writeUIntBE(payload.length, 0, 3);
  header.writeUInt8(type, 3);
  header.writeUInt8(bits, 4);
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
}

/** Literals without indexing; none is longer than 126 bytes. */
function fields(...pairs: readonly (readonly [name: string, value: string])[]): Buffer {
  return Buffer.concat(
    pairs.flatMap(([name, value]) => [Buffer.from([0, name.length]), Buffer.from(name, "latin1"), Buffer.from([value.length]), Buffer.from(value, "latin1")]),
  );
}

/** What is really held: the resident size follows the collector's mood. */
async function heapMegabytes(): Promise<number> {
  for (let turn = 0; turn < 3; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    collect();
  }
  return process.memoryUsage().heapUsed / mebibyte;
}

const greeting = Buffer.concat([preface, frame(types.settings, 0, 0), frame(types.settings, 1, 0)]);
const uint32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

interface Victim {
  readonly mesh: TestMesh;
  readonly target: string;
  readonly accepted: () => number;
  /** An honest client is served as before. */
  readonly serves: () => Promise<void>;
}

async function victim(t: ExecutionContext, name = "b"): Promise<Victim> {
  let accepted = 0;
  const app = await application(t, at(2), (socket) => {
    accepted++;
    socket.pipe(socket);
  });
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload(name, at(2))] } });
  await mesh.pod(name, at(2));
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: app.port }));
  const serves = async (): Promise<void> => {
    const socket = await client(t, at(1), a.port("outbound") ?? 0);
    socket.end("honest");
    t.is((await readAll(socket)).toString(), "honest");
  };
  return { mesh, target: `${at(2)}:${app.port}`, accepted: () => accepted, serves };
}

/** A TLS connection of workload a to the victim, greeted. */
async function proven(t: ExecutionContext, authority: Authority): Promise<TLSSocket> {
  const certificates = new SecretManager({ ca: localCaClient(authority), clock: systemClock, log: silentLogger });
  t.teardown(() => certificates[Symbol.asyncDispose]());
  const { signal } = new AbortController();
  const certificate = await certificates.fetch(parseSpiffeId("spiffe://cluster.local/ns/default/sa/a"), { signal });
  const raw = tcpConnect({ host: at(2), port: 15_008 });
  await once(raw, "connect");
  t.teardown(() => raw.destroy());
  const { socket } = await createMeshTls({ clock: systemClock }).connect(raw, certificate, [parseSpiffeId("spiffe://cluster.local/ns/default/sa/b")], {
    signal,
  });
  socket.on("error", () => {}).resume();
  socket.write(greeting);
  return socket;
}

const ask = (target: string): Buffer => fields([":method", "CONNECT"], [":authority", target]);

const attacks: readonly (readonly [what: string, burst: (target: string, round: number) => Buffer, rounds: number])[] = [
  [
    "100,000 streams opened and reset at once",
    (target, round) => {
      const block = ask(target);
      const ids = Array.from({ length: 500 }, (_, index) => 2 * (500 * round + index) + 1);
      return Buffer.concat(ids.flatMap((id) => [frame(types.headers, endHeaders, id, block), frame(types.rstStream, 0, id, uint32(8))]));
    },
    200,
  ],
  [
    "CONTINUATION without end",
    (target, round) =>
      Buffer.concat([
        round === 0 ? frame(types.headers, 0, 1, ask(target)) : Buffer.alloc(0),
        ...Array.from({ length: 100 }, () => frame(types.continuation, 0, 1, fields(["x", "y"]))),
      ]),
    200,
  ],
  [
    "a large field that is repeated by its index",
    (target, round) => {
      const large = Buffer.concat([Buffer.from([0x40, 1, 0x78, 0x7f, 0x81, 0x1d]), Buffer.alloc(3_840, 0x79)]);
      return frame(types.headers, endHeaders, 2 * round + 1, Buffer.concat([ask(target), large, Buffer.alloc(16_000, 0xbe)]));
    },
    20,
  ],
  ["connection windows above 2^31-1", () => Buffer.concat(Array.from({ length: 100 }, () => frame(types.windowUpdate, 0, 0, uint32(2 ** 31 - 1)))), 100],
  ["PINGs whose answers are not read", () => Buffer.concat(Array.from({ length: 500 }, () => frame(types.ping, 0, 0, Buffer.alloc(8)))), 200],
  ["SETTINGS without end", () => Buffer.concat(Array.from({ length: 500 }, () => frame(types.settings, 0, 0))), 200],
];

for (const [what, burst, rounds] of attacks) {
  test.serial(`${what} cost the one who sends them the tunnel, and nobody else anything`, async (t) => {
    const { mesh, target, serves } = await victim(t);
    await serves();
    const attack = async (): Promise<void> => {
      const socket = await proven(t, mesh.authority);
      for (let round = 0; round < rounds && socket.writable && !socket.readableEnded; round++) {
        socket.write(burst(target, round));
        await new Promise((resolve) => setImmediate(resolve));
      }
      await eventually(t, () => socket.destroyed || socket.readableEnded);
      await serves();
      mesh.lines.length = 0;
    };
    await attack();
    const before = await heapMegabytes();
    await attack();
    await attack();
    const grown = (await heapMegabytes()) - before;
    t.true(grown < mostMegabytes, `each attack left memory behind: ${grown.toFixed(1)} MB`);
  });
}

test.serial("requests without one meaning are reset, one by one, and reach nobody", async (t) => {
  const { mesh, target, accepted, serves } = await victim(t);
  const socket = await proven(t, mesh.authority);
  const resets: number[] = [];
  let pending: Buffer = Buffer.alloc(0);
  socket.on("data", (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= 9 && pending.length >= 9 + pending.readUIntBE(0, 3)) {
      if (pending[3] === types.rstStream) resets.push(pending.readUInt32BE(5));
      pending = pending.subarray(9 + pending.readUIntBE(0, 3));
    }
  });
  const wrong: readonly Buffer[] = [
    fields([":method", "CONNECT"]),
    fields([":authority", target]),
    fields([":method", "CONNECT"], [":method", "CONNECT"], [":authority", target]),
    fields([":method", "CONNECT"], [":authority", target], [":authority", "10.0.0.9:1"]),
    fields([":method", "CONNECT"], [":authority", target], [":path", "/"], [":scheme", "https"]),
    fields([":method", "CONNECT"], [":authority", target], [":protocol", "websocket"]),
    fields([":method", "CONNECT"], [":authority", `${target}\n`]),
    fields([":method", "CONNECT"], [":authority", `${target}\0`]),
    fields([":method", "CONNECT"], [":authority", target], ["baggage", "a=b\r\nINFO forged"]),
  ];
  for (const [index, block] of wrong.entries()) socket.write(frame(types.headers, endHeaders | endStream, 2 * index + 1, block));
  await eventually(t, () => resets.length === wrong.length);
  t.deepEqual(
    resets,
    wrong.map((_, index) => 2 * index + 1),
  );
  t.is(accepted(), 0);
  t.false(socket.destroyed);
  await serves();
});

/** Everything that a certificate of our own authority may be made to say, and nobody who is somebody. */
const impostors: readonly (readonly [what: string, uri: string])[] = [
  ["an upper-case scheme", "SPIFFE://cluster.local/ns/default/sa/a"],
  ["another scheme", "https://cluster.local/ns/default/sa/a"],
  ["another trust domain", "spiffe://cluster.local.evil.example/ns/default/sa/a"],
  ["a trust domain with user information", "spiffe://cluster.local@evil.example/ns/default/sa/a"],
  ["a NUL", "spiffe://cluster.local\0.evil.example/ns/default/sa/a"],
  ["a path that is no identity", "spiffe://cluster.local/ns/default"],
  ["nothing", ""],
];

/** Whoever our authority says that `uri` is, asking for the victim's application at once. */
function present(t: ExecutionContext, { mesh, target }: Victim, uri: string): TLSSocket {
  const key = generateKeyPair();
  const [leaf = "", root = ""] = mesh.authority.sign({ publicKey: key.publicKey, identity: uri as SpiffeId, ttlMs: 0 });
  const socket = tlsConnect({
    host: at(2),
    port: 15_008,
    ca: root,
    cert: leaf,
    key: key.privateKey.export({ type: "pkcs8", format: "pem" }),
    ALPNProtocols: ["h2"],
    servername: "",
    checkServerIdentity: () => undefined,
  });
  t.teardown(() => socket.destroy());
  socket.on("error", () => {}).resume();
  socket.write(Buffer.concat([greeting, frame(types.headers, endHeaders, 1, ask(target))]));
  return socket;
}

test.serial("a client whose certificate names a workload is served", async (t) => {
  const b = await victim(t);
  const socket = present(t, b, "spiffe://cluster.local/ns/default/sa/a");
  await eventually(t, () => b.accepted() === 1);
  t.true(socket.bytesRead > 0);
});

for (const [what, uri] of impostors) {
  test.serial(`a client whose certificate names ${what} gets not one byte`, async (t) => {
    const b = await victim(t);
    const socket = present(t, b, uri);
    await eventually(t, () => socket.destroyed || socket.readableEnded);
    t.is(socket.bytesRead, 0);
    t.is(b.accepted(), 0);
    await b.serves();
  });
}

test.serial("what a client says of itself cannot write a second value, or a second line, into the log", async (t) => {
  const { mesh, target } = await victim(t);
  const socket = await proven(t, mesh.authority);
  const name = 'x" dst.workload="forged" y="\\';
  socket.write(
    frame(types.headers, endHeaders, 1, fields([":method", "CONNECT"], [":authority", target], ["baggage", `k8s.pod.name=${name},k8s.namespace.name=\u2028`])),
  );
  socket.write(frame(types.rstStream, 0, 1, uint32(8)));
  await eventually(t, () => mesh.accessLines().some((line) => line.includes('direction="inbound"')));
  t.true(mesh.lines.every((line) => line.indexOf("\n") === line.length - 1 || !line.includes("\n")));
  t.false(mesh.lines.some((line) => line.includes(' dst.workload="forged"')));
  socket.destroy();
});

for (const name of ["__proto__", "constructor", "toString"]) {
  test.serial(`a workload called ${name} is a workload like any other`, async (t) => {
    const { mesh, serves } = await victim(t, name);
    await serves();
    await eventually(t, () => mesh.accessLines().some((line) => line.includes(`dst.workload="${name}"`)));
    t.regex(await mesh.registry.metrics(), new RegExp(`destination_workload="${name}"`));
  });
}
