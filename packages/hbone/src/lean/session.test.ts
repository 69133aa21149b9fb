/** Rules of RFC 9113 and of the contract that the shared suites leave to each engine, with a peer that speaks frame by frame. */
import { type Duplex, duplexPair } from "node:stream";
import { errorCode, ManualClock } from "@fairway/runtime";
import test from "ava";
import { memoryLink } from "../compliance/link.ts";
import { connectHeaders, data, flags, frame, frameTypes, headerBlock, RawPeer, rstStream, settings, status200, uint32 } from "../compliance/raw-peer.ts";
import { forever, until } from "../compliance/tunnel-compliance.ts";
import type { ClientTunnel, ConnectExchange, PipeOutcome, ServerTunnel, TunnelSettings, TunnelStream } from "../engine.ts";
import { defaultClientSettings, defaultServerSettings, resetBurst } from "../settings.ts";
import { errorCodes } from "./error-codes.ts";
import { createLeanEngine } from "./index.ts";

const authority = "10.0.0.1:80";

interface Served {
  readonly peer: RawPeer;
  readonly tunnel: ServerTunnel;
  readonly exchanges: ConnectExchange[];
  readonly clock: ManualClock;
}

async function serve(
  options: { settings?: Partial<TunnelSettings>; acknowledge?: boolean; onConnect?: (exchange: ConnectExchange) => void } = {},
): Promise<Served> {
  const clock = new ManualClock();
  const link = await memoryLink();
  const exchanges: ConnectExchange[] = [];
  const tunnel = createLeanEngine(clock).serve(link.server, { ...defaultServerSettings, ...options.settings }, (exchange) => {
    exchanges.push(exchange);
    options.onConnect?.(exchange);
  });
  return { peer: new RawPeer(link.client, "client", { acknowledge: options.acknowledge ?? true }), tunnel, exchanges, clock };
}

async function connect(): Promise<{ peer: RawPeer; tunnel: ClientTunnel; clock: ManualClock }> {
  const clock = new ManualClock();
  const link = await memoryLink();
  const peer = new RawPeer(link.server, "server");
  return { peer, tunnel: await createLeanEngine(clock).connect(link.client, defaultClientSettings, { signal: forever }), clock };
}

/** A stream of the client, answered. */
async function opened(peer: RawPeer, tunnel: ClientTunnel): Promise<TunnelStream> {
  const opening = tunnel.open({ authority }, { signal: forever });
  await peer.receive(({ type }) => type === frameTypes.headers);
  peer.send(status200(1));
  return (await opening).stream;
}

/** `near` is the socket that the engine copies to, `app` what is at its other end. */
function attach(stream: TunnelStream): { app: Duplex; near: Duplex; outcome: Promise<PipeOutcome> } {
  const [app, near] = duplexPair();
  app.on("error", () => {});
  return { app, near, outcome: stream.pipe(near, { signal: forever }) };
}

async function resetCode(peer: RawPeer, id: number): Promise<number> {
  return (await peer.receive(({ type, stream }) => type === frameTypes.rstStream && stream === id)).payload.readUInt32BE(0);
}

async function goawayCode(peer: RawPeer): Promise<number> {
  return (await peer.receive(({ type }) => type === frameTypes.goaway)).payload.readUInt32BE(4);
}

function sentBytes(peer: RawPeer, id: number): number {
  return peer.frames.filter(({ type, stream }) => type === frameTypes.data && stream === id).reduce((sum, { payload }) => sum + payload.length, 0);
}

async function settled(turns = 20): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
}

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

test("the peer's windows and frame size are kept to, and new ones are used at once", async (t) => {
  const { peer, tunnel } = await connect();
  const { app } = attach(await opened(peer, tunnel));
  app.write(Buffer.alloc(1024 * 1024));
  await until(() => sentBytes(peer, 1) === 65_535);
  t.true(peer.frames.every(({ payload }) => payload.length <= 16_384));
  peer.send(frame(frameTypes.windowUpdate, 0, 0, uint32(1024 * 1024)));
  await settled();
  t.is(sentBytes(peer, 1), 65_535);
  peer.send(frame(frameTypes.windowUpdate, 0, 1, uint32(1)));
  await until(() => sentBytes(peer, 1) === 65_536);
  // The initial window counts for open streams too, by the difference, also downwards (RFC 9113 6.9.2).
  peer.send(settings([[4, 65_535 + 1_000]]));
  await until(() => sentBytes(peer, 1) === 66_536);
  peer.send(settings([[4, 0]]), frame(frameTypes.windowUpdate, 0, 1, uint32(66_534)));
  await settled();
  t.is(sentBytes(peer, 1), 66_536);
  peer.send(frame(frameTypes.windowUpdate, 0, 1, uint32(2)));
  await until(() => sentBytes(peer, 1) === 66_536);
  peer.send(settings([[5, 32_768]]), frame(frameTypes.windowUpdate, 0, 1, uint32(2 ** 30)));
  await until(() => sentBytes(peer, 1) === 1024 * 1024);
  t.true(peer.frames.some(({ payload }) => payload.length > 16_384));
  t.true(peer.frames.every(({ payload }) => payload.length <= 32_768));
  tunnel.destroy();
});

for (const [what, bytes, code] of [
  ["a stream's window above 2^31-1", [frame(frameTypes.windowUpdate, 0, 1, uint32(2 ** 31 - 1))], errorCodes.flowControlError],
  ["a window update of nothing on a stream", [frame(frameTypes.windowUpdate, 0, 1, uint32(0))], errorCodes.protocolError],
  ["DATA after END_STREAM", [data(1, "", flags.endStream), data(1, "more")], errorCodes.streamClosed],
  ["HEADERS on a connected stream", [connectHeaders(1, authority)], errorCodes.protocolError],
  ["PRIORITY of a wrong length", [frame(frameTypes.priority, 0, 1, Buffer.alloc(4))], errorCodes.frameSizeError],
  ["more DATA than the stream's window", [data(1, Buffer.alloc(65_536)), data(1, Buffer.alloc(65_536))], errorCodes.flowControlError],
] as const) {
  test(`${what} resets the stream and spares the tunnel`, async (t) => {
    const { peer, tunnel, exchanges } = await serve({ settings: { streamWindow: 100_000 } });
    peer.send(connectHeaders(1, authority));
    await until(() => exchanges.length === 1);
    const stream = (exchanges[0] as ConnectExchange).accept({});
    peer.send(...bytes);
    t.is(await resetCode(peer, 1), code);
    stream.duplex().destroy();
    peer.send(connectHeaders(3, authority));
    await until(() => exchanges.length === 2);
    tunnel.destroy();
  });
}

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

test("a drain announces itself, serves what crossed it, and then says what it saw", async (t) => {
  const { peer, tunnel, exchanges } = await serve();
  await peer.receive(({ type }) => type === frameTypes.settings);
  tunnel.drain();
  const first = await peer.receive(({ type }) => type === frameTypes.goaway);
  t.is(first.payload.readUInt32BE(0), 2 ** 31 - 1);
  peer.send(connectHeaders(1, authority));
  await until(() => exchanges.length === 1);
  const ping = await peer.receive(({ type, flags: bits }) => type === frameTypes.ping && bits === 0);
  peer.send(frame(frameTypes.ping, flags.ack, 0, ping.payload));
  await until(() => peer.frames.filter(({ type }) => type === frameTypes.goaway).length === 2);
  t.is(peer.frames.findLast(({ type }) => type === frameTypes.goaway)?.payload.readUInt32BE(0), 1);
  peer.send(connectHeaders(3, authority), data(3, "too late"));
  await settled();
  t.is(exchanges.length, 1);
  exchanges[0]?.reject(503);
  await peer.closed();
  peer.end();
  t.is(await tunnel.closed, undefined);
});

test("a drain does not wait for ever for a peer that answers nothing", async (t) => {
  const { peer, tunnel, clock } = await serve();
  await peer.receive(({ type }) => type === frameTypes.settings);
  tunnel.drain();
  await clock.advance(5_000);
  await peer.closed();
  await clock.advance(5_000);
  t.is(await tunnel.closed, undefined);
});

test("interim answers are waited through, but not without end", async (t) => {
  const { peer, tunnel } = await connect();
  const interim = (id: number): Buffer => frame(frameTypes.headers, flags.endHeaders, id, headerBlock([[":status", "103"]]));
  const opening = tunnel.open({ authority }, { signal: forever });
  await peer.receive(({ type }) => type === frameTypes.headers);
  peer.send(interim(1), interim(1), status200(1));
  t.truthy((await opening).stream);
  const waiting = tunnel.open({ authority }, { signal: forever });
  await peer.receive(({ type, stream }) => type === frameTypes.headers && stream === 3);
  peer.send(...Array.from({ length: 17 }, () => interim(3)));
  await t.throwsAsync(waiting, { code: "HBONE_RESET" });
  t.true(tunnel.usable);
  tunnel.destroy();
});

for (const [what, block] of [
  ["without a status", headerBlock([["baggage", "a=b"]])],
  [
    "with two",
    headerBlock([
      [":status", "200"],
      [":status", "200"],
    ]),
  ],
  [
    "with a request's fields",
    headerBlock([
      [":status", "200"],
      [":method", "GET"],
    ]),
  ],
  ["that is no number", headerBlock([[":status", "2xx"]])],
  [
    "of more bytes than we take",
    headerBlock([
      [":status", "200"],
      ["x", "y".repeat(20_000)],
    ]),
  ],
] as const) {
  test(`an answer ${what} is none: the stream is reset and the tunnel lives`, async (t) => {
    const { peer, tunnel } = await connect();
    const opening = tunnel.open({ authority }, { signal: forever });
    await peer.receive(({ type }) => type === frameTypes.headers);
    peer.send(frame(frameTypes.headers, flags.endHeaders, 1, block));
    await t.throwsAsync(opening, { code: "HBONE_RESET" });
    t.is(await resetCode(peer, 1), errorCodes.protocolError);
    t.true(tunnel.usable);
    t.is(tunnel.streams, 0);
    tunnel.destroy();
  });
}

test("DATA before an answer is a fault of the stream", async (t) => {
  const { peer, tunnel } = await connect();
  const opening = tunnel.open({ authority }, { signal: forever });
  await peer.receive(({ type }) => type === frameTypes.headers);
  peer.send(data(1, "early"));
  await t.throwsAsync(opening, { code: "HBONE_RESET" });
  t.is(await resetCode(peer, 1), errorCodes.protocolError);
  tunnel.destroy();
});

test("a client whose application is gone cancels, a server that said its end has no complaint", async (t) => {
  const near = await connect();
  const { near: socket, outcome } = attach(await opened(near.peer, near.tunnel));
  socket.destroy();
  t.is((await outcome).error, undefined);
  t.is(await resetCode(near.peer, 1), errorCodes.cancel);
  near.tunnel.destroy();
  const far = await serve();
  far.peer.send(connectHeaders(1, authority));
  await until(() => far.exchanges.length === 1);
  const end = attach((far.exchanges[0] as ConnectExchange).accept({}));
  end.app.end("bye");
  await far.peer.receive(({ type, flags: bits }) => type === frameTypes.data && bits === flags.endStream);
  end.near.destroy();
  t.is(await resetCode(far.peer, 1), errorCodes.noError);
  far.tunnel.destroy();
});

test("a peer that takes the header table away hears so in the next block", async (t) => {
  const { peer, tunnel } = await serve({ onConnect: (exchange) => exchange.reject(503) });
  peer.send(settings([[1, 0]]), connectHeaders(1, authority), connectHeaders(3, authority));
  const [first, second] = [
    await peer.receive(({ type }) => type === frameTypes.headers),
    await peer.receive(({ type, stream }) => type === frameTypes.headers && stream === 3),
  ];
  t.is(first.payload[0], 0x20);
  t.not(second.payload[0], 0x20);
  tunnel.destroy();
});

test("headers longer than a frame go out in several, and come in so", async (t) => {
  const link = await memoryLink();
  const baggage = `service.name=${"x".repeat(40_000)}`;
  const engine = createLeanEngine(new ManualClock());
  const seen = Promise.withResolvers<string | undefined>();
  const server = engine.serve(link.server, defaultServerSettings, (exchange) => {
    seen.resolve(exchange.request.baggage);
    exchange.accept({});
  });
  const client = await engine.connect(link.client, defaultClientSettings, { signal: forever });
  await client.open({ authority, baggage }, { signal: forever });
  t.is(await seen.promise, baggage);
  client.destroy();
  server.destroy();
});

test.serial("a million bytes in frames of one byte, which nobody reads, cost little more than a million bytes", async (t) => {
  const { peer, tunnel, exchanges } = await serve();
  peer.send(connectHeaders(1, authority), connectHeaders(3, authority));
  await until(() => exchanges.length === 2);
  // One that nobody reads yet, and one whose application does not read.
  const { app } = attach((exchanges[1] as ConnectExchange).accept({}));
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
  let got = 0;
  app.on("data", (chunk: Buffer) => {
    got += chunk.length;
  });
  await until(() => got === 500_000);
  tunnel.destroy();
});
