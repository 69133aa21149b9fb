/** Windows, limits and timeouts of a session: what a peer may not do, and what its misdeeds cost. */
import { errorCode, ManualClock } from "@fairway/runtime";
import test from "ava";
import { memoryLink } from "../compliance/link.ts";
import { connectHeaders, data, flags, frame, frameTypes, rstStream, settings, uint32 } from "../compliance/raw-peer.ts";
import { forever, until } from "../compliance/tunnel-compliance.ts";
import type { ConnectExchange } from "../engine.ts";
import { defaultClientSettings, defaultServerSettings, resetBurst } from "../settings.ts";
import { errorCodes } from "./error-codes.ts";
import { createLeanEngine } from "./index.ts";
import { attach, authority, goawayCode, resetCode, serve, settled } from "./scripted-peer.ts";

test("however a stream ends, the connection's window comes back whole", async (t) => {
  const { peer, tunnel, exchanges } = await serve();
  const block = Buffer.alloc(64 * 1024);
  const ways: readonly ((id: number, exchange: ConnectExchange) => void)[] = [
    // Reset by the peer before an answer, refused, accepted and reset here, left by the application, read to the end, padded.
    (id) => peer.send(rstStream(id, errorCodes.cancel)),
    (_, exchange) => exchange.reject(503),
    (_, exchange) => exchange.accept({}).reset(),
    (_, exchange) => attach(exchange.accept({})).near.destroy(),
    (id, exchange) => {
      attach(exchange.accept({})).app.resume().end();
      peer.send(data(id, "", flags.endStream));
    },
    (_, exchange) => exchange.accept({}).duplex().destroy(),
    (id, exchange) => {
      exchange.accept({}).duplex().resume().end();
      peer.send(frame(frameTypes.data, flags.padded | flags.endStream, id, Buffer.concat([Buffer.from([200]), Buffer.alloc(200)])));
    },
  ];
  let sent = 0;
  const rounds = 40;
  for (let index = 0; index < rounds * ways.length; index++) {
    const id = 2 * index + 1;
    const before = exchanges.length;
    peer.send(connectHeaders(id, authority), ...Array.from({ length: 16 }, () => data(id, block)));
    sent += 16 * block.length;
    await until(() => exchanges.length > before);
    ways[index % ways.length]?.(id, exchanges.at(-1) as ConnectExchange);
    // Late, for a stream that may be closed by now.
    if (index % ways.length > 0 && index % ways.length < 4) {
      peer.send(data(id, block));
      sent += block.length;
    }
    await settled(4);
  }
  await until(() => tunnel.streams === 0);
  const returned = peer.frames
    .filter(({ type, stream }) => type === frameTypes.windowUpdate && stream === 0)
    .reduce((sum, { payload }) => sum + payload.readUInt32BE(0), 0);
  const opening = defaultServerSettings.connectionWindow - 65_535;
  t.true(sent > 10 * defaultServerSettings.connectionWindow);
  t.true(sent - (returned - opening) < defaultServerSettings.connectionWindow / 4 + 64 * 1024, `${sent} sent, ${returned - opening} returned`);
  tunnel.destroy();
});

for (const [what, bytes, code] of [
  ["more DATA than the connection's window", Array.from({ length: 3 }, (_, index) => data(2 * index + 1, Buffer.alloc(65_536))), errorCodes.flowControlError],
  ["an initial window above 2^31-1", [settings([[4, 2 ** 31]])], errorCodes.flowControlError],
  [
    "an initial window that overflows an open stream",
    [frame(frameTypes.windowUpdate, 0, 1, uint32(2 ** 30)), settings([[4, 2 ** 31 - 1]])],
    errorCodes.flowControlError,
  ],
  ["a frame size below the least", [settings([[5, 16_383]])], errorCodes.protocolError],
  ["a push setting of 2", [settings([[2, 2]])], errorCodes.protocolError],
  ["DATA on a stream that was never opened", [data(99, "x")], errorCodes.protocolError],
  ["RST_STREAM of a stream that was never opened", [rstStream(99, 0)], errorCodes.protocolError],
  ["a window update of a stream that was never opened", [frame(frameTypes.windowUpdate, 0, 99, uint32(1))], errorCodes.protocolError],
  ["a header block that is no HPACK", [frame(frameTypes.headers, flags.endHeaders, 7, Buffer.from([0x80]))], errorCodes.compressionError],
  ["empty DATA without end", Array.from({ length: 2_000 }, () => data(1, "")), errorCodes.enhanceYourCalm],
  ["PRIORITY without end", Array.from({ length: 20_001 }, () => frame(frameTypes.priority, 0, 1, Buffer.alloc(5))), errorCodes.enhanceYourCalm],
  ["PING without end", Array.from({ length: 20_001 }, () => frame(frameTypes.ping, 0, 0, Buffer.alloc(8))), errorCodes.enhanceYourCalm],
  [
    "streams that the server has to reset, without end",
    Array.from({ length: 2 * resetBurst }, (_, index) => [
      connectHeaders(2 * index + 7, authority),
      frame(frameTypes.windowUpdate, 0, 2 * index + 7, uint32(0)),
    ]).flat(),
    errorCodes.enhanceYourCalm,
  ],
] as const) {
  test(`${what} ends the tunnel, and the GOAWAY says why`, async (t) => {
    const { peer, tunnel } = await serve({ settings: { connectionWindow: 100_000, streamWindow: 90_000 } });
    peer.send(connectHeaders(1, authority), connectHeaders(3, authority), connectHeaders(5, authority));
    peer.send(...bytes);
    t.is(await goawayCode(peer), code);
    t.is(errorCode(await tunnel.closed), "HBONE_PROTOCOL");
    t.is(tunnel.streams, 0);
  });
}

for (const code of [errorCodes.noError, errorCodes.internalError]) {
  test(`what follows a GOAWAY with ${code} in the same bytes is not served when the tunnel closes by it`, async (t) => {
    const { peer, tunnel, exchanges } = await serve();
    peer.send(frame(frameTypes.goaway, 0, 0, Buffer.concat([uint32(0), uint32(code)])), connectHeaders(1, authority), data(1, "too late"));
    await peer.closed();
    peer.end();
    await tunnel.closed;
    t.deepEqual(exchanges, []);
    t.is(tunnel.streams, 0);
  });
}

test("a stream above the limit is refused, and the peer may try again", async (t) => {
  const { peer, tunnel, exchanges } = await serve({ settings: { maxStreams: 2 } });
  peer.send(connectHeaders(1, authority), connectHeaders(3, authority), connectHeaders(5, authority));
  t.is(await resetCode(peer, 5), errorCodes.refusedStream);
  exchanges[0]?.reject(503);
  peer.send(connectHeaders(7, authority));
  await until(() => exchanges.length === 3);
  tunnel.destroy();
});

test("a peer that never acknowledges our SETTINGS, or never sends its own, is gone in time", async (t) => {
  const { peer, tunnel, clock } = await serve({ acknowledge: false });
  await settled();
  await clock.advance(9_999);
  t.false(peer.ended);
  await clock.advance(10_001);
  t.is(await goawayCode(peer), errorCodes.settingsTimeout);
  t.is(errorCode(await tunnel.closed), "HBONE_PROTOCOL");
  const link = await memoryLink();
  link.server.resume();
  const silent = new ManualClock();
  const connecting = createLeanEngine(silent).connect(link.client, defaultClientSettings, { signal: forever });
  await silent.advance(10_000);
  await t.throwsAsync(connecting, { code: "HBONE_TUNNEL_LOST" });
});

test.serial("a million bytes in frames of one byte, which nobody reads, cost little more than a million bytes", async (t) => {
  const { peer, tunnel, exchanges } = await serve();
  peer.send(connectHeaders(1, authority), connectHeaders(3, authority));
  await until(() => exchanges.length === 2);
  // One that nobody reads yet, and one whose application does not read.
  const { app, near } = attach((exchanges[1] as ConnectExchange).accept({}));
  const before = process.memoryUsage().rss;
  for (const id of [1, 3]) {
    const burst = Buffer.concat(Array.from({ length: 1_000 }, () => data(id, "x")));
    for (let count = 0; count < 500; count++) {
      peer.send(burst);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  const grown = process.memoryUsage().rss - before;
  t.true(grown < 48 * 1024 * 1024, `memory grew by ${grown} bytes`);
  t.true(near.writableLength < 2 * near.writableHighWaterMark, `${near.writableLength} bytes were given to a socket that does not take them`);
  let got = 0;
  app.on("data", (chunk: Buffer) => {
    got += chunk.length;
  });
  await until(() => got === 500_000);
  tunnel.destroy();
});
