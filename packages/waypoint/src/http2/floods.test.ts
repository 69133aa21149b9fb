/** Clients that write HTTP/2 by hand and too much of it: the session ends within its bounds, and the requests it began end with it. */
import { type Duplex, duplexPair } from "node:stream";
import { HeaderFields } from "@fairway/model";
import test from "ava";
import { textBody } from "../body.ts";
import { defaultHttpLimits } from "../http-connection.ts";
import { serveHttp2 } from "./server.ts";

const types = { headers: 1, rstStream: 3, settings: 4, ping: 6, windowUpdate: 8, continuation: 9 } as const;
const [endStream, endHeaders] = [1, 4];
const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
const mebibyte = 1024 * 1024;

function frame(type: number, bits: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(9);
  header.writeUIntBE(payload.length, 0, 3);
  header.writeUInt8(type, 3);
  header.writeUInt8(bits, 4);
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** Literals without indexing; none is longer than 126 bytes. */
function fields(...pairs: readonly (readonly [name: string, value: string])[]): Buffer {
  return Buffer.concat(
    pairs.map(([name, value]) => Buffer.concat([Buffer.from([0, name.length]), Buffer.from(name), Buffer.from([value.length]), Buffer.from(value)])),
  );
}

const get = fields([":method", "GET"], [":scheme", "http"], [":authority", "api"], [":path", "/"]);
const headers = (stream: number, block: Buffer): Buffer => frame(types.headers, endHeaders | endStream, stream, block);
const times = (count: number, make: (index: number) => Buffer): Buffer => Buffer.concat(Array.from({ length: count }, (_, index) => make(index)));
const large = Buffer.concat([Buffer.from([0x40, 1, 0x78, 0x7f, 0x81, 0x1d]), Buffer.alloc(3_840, 0x79)]);

interface Session {
  readonly client: Duplex;
  readonly asked: () => number;
  /** Names of the fields of the last request. */
  readonly names: () => readonly string[];
  readonly active: () => number;
  readonly closed: Promise<void>;
  readonly isClosed: () => boolean;
}

function serve(): Session {
  const [client, server] = duplexPair();
  let [asked, closed] = [0, false];
  let names: readonly string[] = [];
  client.on("error", () => {}).resume();
  const connection = serveHttp2(server, {
    limits: defaultHttpLimits,
    onRefused: () => {},
    onRequest: (request) => {
      asked++;
      names = [...request.head.headers].map(([name]) => name);
      request.respond({ status: 200, headers: new HeaderFields(), body: textBody("ok") });
    },
  });
  void connection.closed.then(() => {
    closed = true;
  });
  client.write(Buffer.concat([preface, frame(types.settings, 0, 0), frame(types.settings, 1, 0)]));
  return { client, asked: () => asked, names: () => names, active: () => connection.active, closed: connection.closed, isClosed: () => closed };
}

const floods: readonly (readonly [what: string, burst: (round: number) => Buffer, rounds: number])[] = [
  [
    "requests opened and reset at once (CVE-2023-44487)",
    (round) =>
      times(100, (index) => {
        const id = 2 * (100 * round + index) + 1;
        return Buffer.concat([headers(id, get), frame(types.rstStream, 0, id, uint32(8))]);
      }),
    200,
  ],
  [
    "CONTINUATION without end (CVE-2024-27983)",
    (round) =>
      Buffer.concat([round === 0 ? frame(types.headers, 0, 1, get) : Buffer.alloc(0), times(100, () => frame(types.continuation, 0, 1, fields(["x", "y"])))]),
    200,
  ],
  ["a connection window above 2^31-1 (CVE-2026-21714)", () => frame(types.windowUpdate, 0, 0, uint32(2 ** 31 - 1)), 100],
  ["HEADERS on an even stream", () => headers(2, get), 1],
];

for (const [what, burst, rounds] of floods) {
  test(`${what} ends the session and every request it began`, async (t) => {
    const session = serve();
    for (let round = 0; round < rounds && !session.isClosed(); round++) {
      session.client.write(burst(round));
      await new Promise((resolve) => setImmediate(resolve));
    }
    session.client.end();
    await session.closed;
    t.true(session.asked() < 5_000, `${session.asked()} requests were begun`);
    t.is(session.active(), 0);
  });
}

for (const [what, block] of [
  ["one large field, repeated by its index (CVE-2026-47774)", Buffer.concat([get, large, Buffer.alloc(12_000, 0xbe)])],
  ["four thousand crumbs of a cookie", Buffer.concat([get, times(4_000, () => Buffer.from([0x60, 1, 0x61]))])],
  ["two paths", Buffer.concat([get, fields([":path", "/admin"])])],
  ["no path", fields([":method", "GET"], [":scheme", "http"], [":authority", "api"])],
  ["a pseudo-header after a field", fields([":method", "GET"], ["x", "y"], [":scheme", "http"], [":path", "/"])],
  ["a path with a line feed", fields([":method", "GET"], [":scheme", "http"], [":authority", "api"], [":path", "/\nx"])],
] as const) {
  test.serial(`a request with ${what} is asked of nobody, and costs little`, async (t) => {
    const session = serve();
    const before = process.memoryUsage().rss;
    session.client.write(headers(1, block));
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    t.is(session.asked(), 0);
    t.is(session.active(), 0);
    t.true(process.memoryUsage().rss - before < 64 * mebibyte);
    session.client.destroy();
    await session.closed;
  });
}

// nghttp2 leaves it out, for the policies and for the application alike.
test("a field with a NUL does not arrive, and a request without any of that is answered", async (t) => {
  const session = serve();
  session.client.write(headers(1, Buffer.concat([get, fields(["x", "a\0b"], ["y", "z"])])));
  for (let turn = 0; turn < 50 && session.asked() === 0; turn++) await new Promise((resolve) => setImmediate(resolve));
  t.is(session.asked(), 1);
  t.deepEqual(session.names(), ["y"]);
  session.client.destroy();
  await session.closed;
});

for (const [what, bytes] of [
  ["PING", frame(types.ping, 0, 0, Buffer.alloc(8))],
  ["SETTINGS", frame(types.settings, 0, 0)],
] as const) {
  test.serial(`${what} without end, with nobody reading the answers, does not pile up`, async (t) => {
    const session = serve();
    session.client.pause();
    const before = process.memoryUsage().rss;
    const burst = times(1_000, () => bytes);
    for (let count = 0; count < 200 && !session.isClosed(); count++) {
      session.client.write(burst);
      await new Promise((resolve) => setImmediate(resolve));
    }
    t.true(process.memoryUsage().rss - before < 96 * mebibyte);
    session.client.destroy();
    await session.closed;
  });
}
