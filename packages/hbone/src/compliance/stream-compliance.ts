/** Rules broken on a stream that is open, by a peer that may open streams: each costs it the stream or the tunnel, and nobody else anything. */
import type { ServerTunnel } from "../engine.ts";
import { defaultServerSettings } from "../settings.ts";
import { authority, type Behaviour, echo, errorCodes, type Serve, stillServes } from "./hostile-peer.ts";
import { connectHeaders, data, flags, frame, frameTypes, headerBlock, type RawPeer, settings, uint32 } from "./raw-peer.ts";
import { until } from "./tunnel-compliance.ts";

const frameSizeError = 6;
const mebibyte = 1024 * 1024;

/** Resolves when stream 1 was reset; false when the tunnel ended instead. */
async function reset(peer: RawPeer): Promise<number | undefined> {
  const found = await peer.receive(({ type, stream }) => type === frameTypes.goaway || (type === frameTypes.rstStream && stream === 1)).catch(() => undefined);
  return found?.type === frameTypes.rstStream ? found.payload.readUInt32BE(0) : undefined;
}

export function brokenRules(behaviour: Behaviour, alone: Behaviour, serve: Serve): void {
  const offences: readonly (readonly [what: string, code: number, frames: readonly Buffer[]])[] = [
    ["a window update of nothing", errorCodes.protocolError, [frame(frameTypes.windowUpdate, 0, 1, uint32(0))]],
    ["a window above 2^31-1", errorCodes.flowControl, [frame(frameTypes.windowUpdate, 0, 1, uint32(2 ** 31 - 1))]],
    ["a second CONNECT", errorCodes.protocolError, [connectHeaders(1, authority)]],
    ["a PRIORITY of a wrong length", frameSizeError, [frame(frameTypes.priority, 0, 1, Buffer.alloc(4))]],
    [
      "more bytes than its window",
      errorCodes.flowControl,
      Array.from({ length: defaultServerSettings.streamWindow / mebibyte + 1 }, () => data(1, Buffer.alloc(mebibyte))),
    ],
  ];
  for (const [what, code, frames] of offences) {
    behaviour(`${what} on an open stream ends it, or the tunnel`, async (t) => {
      // Not accepted, so that nobody reads and the window stays spent.
      const { peer, tunnel, exchanges } = await serve(what.includes("bytes") ? undefined : (exchange) => void echo(exchange));
      peer.send(connectHeaders(1, authority));
      await until(() => exchanges.length === 1);
      peer.send(...frames);
      const seen = await reset(peer);
      if (seen === undefined) await tunnel.closed;
      else t.is(seen, code);
      await until(() => tunnel.streams === 0);
      t.is(exchanges.length, 1);
      tunnel.destroy();
    });
  }

  behaviour("SETTINGS that make an open stream's window grow past 2^31-1 end the tunnel", async (t) => {
    const { peer, tunnel } = await serve((exchange) => void echo(exchange));
    peer.send(connectHeaders(1, authority), frame(frameTypes.windowUpdate, 0, 1, uint32(2 ** 30)), settings([[4, 2 ** 31 - 1]]));
    await tunnel.closed;
    t.is(tunnel.streams, 0);
  });

  behaviour("streams above the announced limit are refused, or end the tunnel, and are never asked of anybody", async (t) => {
    const { peer, tunnel, exchanges } = await serve((exchange) => void exchange.cancelled);
    const most = defaultServerSettings.maxStreams;
    for (let index = 0; index < most + 20; index++) peer.send(connectHeaders(2 * index + 1, authority));
    await until(() => peer.ended || peer.frames.some(({ type }) => type === frameTypes.rstStream || type === frameTypes.goaway));
    t.true(exchanges.length <= most);
    tunnel.destroy();
  });

  // RFC 9113 8.5 makes them a stream error; nghttp2 takes them for the end. The bytes before them are the same either way.
  behaviour("trailers on a tunnel's stream end it or reset it, after every byte before them, and no other stream", async (t) => {
    const { peer, tunnel, exchanges } = await serve();
    peer.send(connectHeaders(1, authority));
    await until(() => exchanges.length === 1);
    const [exchange] = exchanges;
    if (exchange === undefined) return t.fail();
    const outcome = echo(exchange);
    peer.send(data(1, "before"));
    await peer.receive(({ type, stream, payload }) => type === frameTypes.data && stream === 1 && payload.length > 0);
    peer.send(frame(frameTypes.headers, flags.endHeaders | flags.endStream, 1, headerBlock([["x-checksum", "1"]])));
    t.is((await outcome).received, "before".length);
    await until(() => tunnel.streams === 0);
    peer.send(connectHeaders(3, authority), data(3, "alive", flags.endStream));
    await until(() => exchanges.length === 2);
    void echo(exchanges[1] ?? exchange);
    t.is(await peer.receiveAll(3), "alive");
    tunnel.destroy();
  });

  alone("a header block that repeats one large field by its index is never a CONNECT (CVE-2026-47774)", async (t) => {
    const { peer, tunnel, exchanges } = await serve();
    const [method, target] = [headerBlock([[":method", "CONNECT"]]), headerBlock([[":authority", authority]])];
    // Into the table with it, then one byte each time.
    const large = Buffer.concat([Buffer.from([0x40]), headerBlock([["x", "y".repeat(3_900)]]).subarray(1)]);
    const before = process.memoryUsage().rss;
    peer.send(frame(frameTypes.headers, flags.endHeaders, 1, Buffer.concat([method, target, large, Buffer.alloc(16_000, 0xbe)])));
    await until(() => peer.ended || peer.frames.some(({ type }) => type === frameTypes.rstStream || type === frameTypes.goaway));
    t.deepEqual(exchanges, []);
    // Decoded in full it would be 62 MB.
    t.true(process.memoryUsage().rss - before < 48 * mebibyte);
    tunnel.destroy();
  });

  for (const [what, bytes, most] of [
    ["empty DATA", data(1, ""), 20_000],
    ["PRIORITY", frame(frameTypes.priority, 0, 1, Buffer.alloc(5, 1)), 20_000],
    ["window updates of one byte", frame(frameTypes.windowUpdate, 0, 0, uint32(1)), 20_000],
    ["frames of a type that nobody knows", frame(0xfa, 0, 1, Buffer.alloc(100)), 20_000],
    ["connection windows above 2^31-1 (CVE-2026-21714)", frame(frameTypes.windowUpdate, 0, 0, uint32(2 ** 31 - 1)), 10_000],
  ] as const) {
    alone(`${what} without end cost the tunnel, or nothing`, async (t) => {
      const { peer, tunnel } = await serve((exchange) => void echo(exchange));
      peer.send(connectHeaders(1, authority));
      await peer.receive(({ type }) => type === frameTypes.headers);
      const before = process.memoryUsage().rss;
      const burst = Buffer.concat(Array.from({ length: 100 }, () => bytes));
      for (let count = 0; count < most / 100 && !peer.ended; count++) {
        peer.send(burst);
        await new Promise((resolve) => setImmediate(resolve));
      }
      t.true(process.memoryUsage().rss - before < 48 * mebibyte);
      await aliveOrGone(t, peer, tunnel);
    });
  }
}

async function aliveOrGone(t: Parameters<typeof stillServes>[0], peer: RawPeer, tunnel: ServerTunnel): Promise<void> {
  if (peer.ended || peer.frames.some(({ type }) => type === frameTypes.goaway)) {
    await tunnel.closed;
    t.is(tunnel.streams, 0);
    return;
  }
  await stillServes(t, peer, 3);
  tunnel.destroy();
}
