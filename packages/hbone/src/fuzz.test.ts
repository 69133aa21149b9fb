/** Whatever bytes arrive at a tunnel, nothing is thrown, nothing is left open, and a good tunnel beside it goes on. */
import { duplexPair } from "node:stream";
import { ManualClock } from "@fairway/runtime";
import test from "ava";
import fc from "fast-check";
import { connectHeaders, data, flags, frame, preface, RawPeer, rstStream, settings, status200 } from "./compliance/raw-peer.ts";
import { forever } from "./compliance/tunnel-compliance.ts";
import { createNodeHttp2Engine } from "./node-http2-engine.ts";
import { defaultClientSettings, defaultServerSettings } from "./settings.ts";

const engine = createNodeHttp2Engine(new ManualClock());
const byte = fc.integer({ min: 0, max: 255 });
const payload = fc.uint8Array({ maxLength: 64 });
/** Frames that are nearly right: known types with any flags, few streams, any payload; and right ones in any order. */
const nearlyRight = fc.oneof(
  {
    weight: 3,
    arbitrary: fc
      .tuple(fc.integer({ min: 0, max: 10 }), byte, fc.integer({ min: 0, max: 5 }), payload)
      .map(([type, bits, stream, body]) => frame(type, bits, stream, body)),
  },
  { weight: 2, arbitrary: fc.integer({ min: 0, max: 4 }).map((index) => connectHeaders(2 * index + 1, "10.0.0.1:80")) },
  {
    weight: 1,
    arbitrary: fc.tuple(fc.integer({ min: 1, max: 9 }), payload, fc.boolean()).map(([stream, body, end]) => data(stream, body, end ? flags.endStream : 0)),
  },
  { weight: 1, arbitrary: fc.tuple(fc.integer({ min: 1, max: 9 }), byte).map(([stream, code]) => rstStream(stream, code)) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 9 }).map((stream) => status200(stream)) },
);
const script = fc.array(nearlyRight, { maxLength: 20 });

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
}

async function feedServer(bytes: Uint8Array): Promise<void> {
  const [client, server] = duplexPair();
  client.on("error", () => {}).resume();
  const tunnel = engine.serve(server, defaultServerSettings, (exchange) => {
    const [app, near] = duplexPair();
    app.pipe(app);
    // Never rejects.
    void exchange.accept({}).pipe(near, { signal: forever });
  });
  client.write(bytes);
  await turns(6);
  client.destroy();
  tunnel.destroy();
  await tunnel.closed;
}

test("random bytes at a server never throw", async (t) => {
  await fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 512 }), feedServer), { numRuns: 150 });
  t.pass();
});

test("random bytes after the preface at a server never throw", async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 512 }), (bytes) => feedServer(Buffer.concat([preface, settings(), bytes]))),
    { numRuns: 150 },
  );
  t.pass();
});

test("nearly right frames at a server never throw", async (t) => {
  await fc.assert(
    fc.asyncProperty(script, (frames) => feedServer(Buffer.concat([preface, settings(), ...frames]))),
    { numRuns: 400 },
  );
  t.pass();
});

test("nearly right frames at a client never throw, and every open and copy settles", async (t) => {
  await fc.assert(
    fc.asyncProperty(script, async (frames) => {
      const [client, server] = duplexPair();
      const peer = new RawPeer(server, "server");
      const tunnel = await engine.connect(client, defaultClientSettings, { signal: forever });
      const opening = [1, 2, 3].map(async () => {
        const { stream } = await tunnel.open({ authority: "10.0.0.1:80" }, { signal: forever });
        const [app, near] = duplexPair();
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
    }),
    { numRuns: 300 },
  );
});
