/** Whatever frames arrive in whatever order, nothing is thrown, nothing is left open, and memory stays bounded. */
import { duplexPair } from "node:stream";
import { ManualClock } from "@fairway/runtime";
import test from "ava";
import fc from "fast-check";
import {
  connectHeaders,
  data,
  flags,
  frame,
  frameTypes,
  headerBlock,
  preface,
  RawPeer,
  rstStream,
  settings,
  status200,
  uint32,
} from "../compliance/raw-peer.ts";
import { forever } from "../compliance/tunnel-compliance.ts";
import { defaultClientSettings, defaultServerSettings } from "../settings.ts";
import { createLeanEngine } from "./index.ts";

const engine = createLeanEngine(new ManualClock());
const byte = fc.integer({ min: 0, max: 255 });
const stream = fc.integer({ min: 0, max: 9 });
const payload = fc.uint8Array({ maxLength: 64 });
const number32 = fc.oneof(fc.integer({ min: 0, max: 70_000 }), fc.integer({ min: 0, max: 2 ** 32 - 1 }));

/** Valid frames of every type, in an order that need not be. */
const valid = fc.oneof(
  fc.tuple(stream, payload, fc.boolean()).map(([id, body, end]) => data(id, body, end ? flags.endStream : 0)),
  fc
    .tuple(stream, fc.integer({ min: 0, max: 20 }))
    .map(([id, length]) => frame(frameTypes.data, flags.padded, id, Buffer.concat([Buffer.from([length]), Buffer.alloc(30)]))),
  stream.map((id) => connectHeaders(id, "10.0.0.1:80")),
  stream.map((id) => status200(id)),
  fc.tuple(stream, fc.boolean(), payload).map(([id, end, block]) => frame(frameTypes.headers, flags.endHeaders | (end ? flags.endStream : 0), id, block)),
  stream.map((id) =>
    Buffer.concat([
      frame(frameTypes.headers, 0, id, headerBlock([[":method", "CONNECT"]])),
      frame(frameTypes.continuation, flags.endHeaders, id, headerBlock([[":authority", "10.0.0.1:80"]])),
    ]),
  ),
  stream.map((id) => frame(frameTypes.priority, 0, id, Buffer.alloc(5))),
  fc.tuple(stream, fc.integer({ min: 0, max: 15 })).map(([id, code]) => rstStream(id, code)),
  fc.array(fc.tuple(fc.integer({ min: 0, max: 9 }), number32), { maxLength: 4 }).map((pairs) => settings(pairs)),
  fc.constant(frame(frameTypes.settings, flags.ack, 0)),
  fc.tuple(stream, payload).map(([id, body]) => frame(frameTypes.pushPromise, flags.endHeaders, id, Buffer.concat([uint32(2), body]))),
  fc.boolean().map((ack) => frame(frameTypes.ping, ack ? flags.ack : 0, 0, Buffer.alloc(8))),
  fc.tuple(stream, fc.integer({ min: 0, max: 3 })).map(([id, code]) => frame(frameTypes.goaway, 0, 0, Buffer.concat([uint32(id), uint32(code)]))),
  fc.tuple(stream, number32).map(([id, increment]) => frame(frameTypes.windowUpdate, 0, id, uint32(increment))),
  fc.tuple(fc.integer({ min: 10, max: 255 }), byte, stream, payload).map(([type, bits, id, body]) => frame(type, bits, id, body)),
);
/** Known types with any flags and any payload. */
const nearlyValid = fc.tuple(fc.integer({ min: 0, max: 10 }), byte, stream, payload).map(([type, bits, id, body]) => frame(type, bits, id, body));
const script = fc.array(fc.oneof({ weight: 5, arbitrary: valid }, { weight: 1, arbitrary: nearlyValid }), { maxLength: 30 });

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** Feeds a server, one write per frame or all at once; every third CONNECT is refused, every third used as a duplex, the rest copied. */
async function feedServer(frames: readonly Uint8Array[]): Promise<{ streams: number; outcomes: number; copies: number }> {
  const [client, server] = duplexPair();
  client.on("error", () => {}).resume();
  let [asked, copies, outcomes] = [0, 0, 0];
  const tunnel = engine.serve(server, defaultServerSettings, (exchange) => {
    asked += 1;
    if (asked % 3 === 0) exchange.reject(503);
    else if (asked % 3 === 1) {
      const [app, near] = duplexPair();
      app.on("error", () => {});
      app.pipe(app);
      copies += 1;
      // Never rejects.
      void exchange
        .accept({})
        .pipe(near, { signal: forever })
        .then(() => {
          outcomes += 1;
        });
    } else {
      const duplex = exchange.accept({}).duplex();
      duplex.on("error", () => {});
      duplex.pipe(duplex);
    }
  });
  for (const bytes of frames) client.write(bytes);
  await turns(6);
  client.destroy();
  tunnel.destroy();
  await tunnel.closed;
  await turns(4);
  return { streams: tunnel.streams, outcomes, copies };
}

const over = { streams: 0, open: 0 };
function rest({ streams, outcomes, copies }: { streams: number; outcomes: number; copies: number }): typeof over {
  return { streams, open: copies - outcomes };
}

test("random bytes at a server never throw", async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 512 }), fc.boolean(), async (bytes, greeted) => {
      t.deepEqual(rest(await feedServer(greeted ? [preface, settings(), bytes] : [bytes])), over);
    }),
    { numRuns: 300 },
  );
});

test("frames in any order at a server never throw, and every copy ends with the tunnel", async (t) => {
  await fc.assert(
    fc.asyncProperty(script, fc.boolean(), async (frames, whole) => {
      const all = [preface, settings(), connectHeaders(1, "10.0.0.1:80"), ...frames];
      t.deepEqual(rest(await feedServer(whole ? [Buffer.concat(all)] : all)), over);
    }),
    { numRuns: 3_000 },
  );
});

test("frames in any order at a client never throw, and every open and copy settles", async (t) => {
  await fc.assert(
    fc.asyncProperty(script, async (frames) => {
      const [client, server] = duplexPair();
      const peer = new RawPeer(server, "server");
      const tunnel = await engine.connect(client, defaultClientSettings, { signal: forever });
      const opening = [1, 2, 3].map(async () => {
        const { stream } = await tunnel.open({ authority: "10.0.0.1:80" }, { signal: forever });
        const [app, near] = duplexPair();
        app.on("error", () => {});
        app.resume().end("bytes");
        return stream.pipe(near, { signal: forever });
      });
      const settled = Promise.allSettled(opening);
      await turns(2);
      peer.send(...frames);
      await turns(6);
      tunnel.destroy();
      server.destroy();
      t.is((await settled).length, 3);
      await tunnel.closed;
      t.is(tunnel.streams, 0);
    }),
    { numRuns: 1_500 },
  );
});

test.serial("a hundred thousand frames in any order leave no memory behind", async (t) => {
  const scripts = fc.sample(script, 200);
  const round = async (): Promise<void> => {
    for (const frames of scripts) await feedServer([Buffer.concat([preface, settings(), ...frames])]);
  };
  await round();
  const before = process.memoryUsage().rss;
  for (let count = 0; count < 10; count++) await round();
  const grown = process.memoryUsage().rss - before;
  t.true(grown < 64 * 1024 * 1024, `memory grew by ${grown} bytes`);
});
