/** Rules of RFC 9113 and of the contract that the shared suites leave to each engine, with a peer that speaks frame by frame. */
import { ManualClock } from "@fairway/runtime";
import test from "ava";
import { memoryLink } from "../compliance/link.ts";
import { connectHeaders, data, flags, frame, frameTypes, headerBlock, settings, status200, uint32 } from "../compliance/raw-peer.ts";
import { forever, until } from "../compliance/tunnel-compliance.ts";
import type { ConnectExchange } from "../engine.ts";
import { defaultClientSettings, defaultServerSettings } from "../settings.ts";
import { errorCodes } from "./error-codes.ts";
import { createLeanEngine } from "./index.ts";
import { attach, authority, connect, opened, resetCode, sentBytes, serve, settled } from "./scripted-peer.ts";

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
