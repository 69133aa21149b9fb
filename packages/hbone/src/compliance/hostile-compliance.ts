/**
 * What every engine must do with peers that misbehave: raw frames, wrong frames, floods, silence (performance anchors of CVE classes:
 * rapid reset, CONTINUATION, header amplification, early data, missing pseudo-headers, window overflow).
 */
import { type Duplex, duplexPair } from "node:stream";
import { errorCode, ManualClock, type MeshError } from "@fairway/runtime";
import type { ExecutionContext, TestFn } from "ava";
import type { ClientTunnel, ConnectExchange, PipeOutcome, ServerTunnel, TunnelEngine } from "../engine.ts";
import { defaultClientSettings, defaultServerSettings } from "../settings.ts";
import { authority, type Behaviour, echo, errorCodes, type Serve, type Served, stillServes } from "./hostile-peer.ts";
import { memoryLink } from "./link.ts";
import { floods, malformed } from "./malformed-compliance.ts";
import { connectHeaders, data, flags, frame, frameTypes, headerBlock, preface, RawPeer, rstStream, settings, status200, uint32 } from "./raw-peer.ts";
import { brokenRules } from "./stream-compliance.ts";
import { forever, until } from "./tunnel-compliance.ts";

export interface HostileSubject {
  readonly name: string;
  readonly create: (clock: ManualClock) => TunnelEngine;
}

export function hostileCompliance(test: TestFn, { name, create }: HostileSubject): void {
  const behaviour = (title: string, run: (t: ExecutionContext) => Promise<void>): void => {
    test(`${name}: ${title}`, run);
  };
  /** By itself, for what looks at the memory of the whole process. */
  const alone = (title: string, run: (t: ExecutionContext) => Promise<void>): void => {
    test.serial(`${name}: ${title}`, run);
  };
  /** A server of the engine with a raw client. */
  const serve = async (onConnect?: (exchange: ConnectExchange) => void): Promise<Served> => {
    const clock = new ManualClock();
    const link = await memoryLink();
    const exchanges: ConnectExchange[] = [];
    const refusals: MeshError[] = [];
    const onExchange = (exchange: ConnectExchange): void => {
      exchanges.push(exchange);
      onConnect?.(exchange);
    };
    const tunnel = create(clock).serve(link.server, defaultServerSettings, onExchange, (why) => refusals.push(why));
    return { peer: new RawPeer(link.client, "client"), tunnel, exchanges, refusals, clock };
  };
  /** A client of the engine with a raw server. */
  const connect = async (): Promise<{ peer: RawPeer; tunnel: ClientTunnel; clock: ManualClock }> => {
    const clock = new ManualClock();
    const link = await memoryLink();
    const peer = new RawPeer(link.server, "server");
    const tunnel = await create(clock).connect(link.client, defaultClientSettings, { signal: forever });
    return { peer, tunnel, clock };
  };
  /** A server of the engine with a client that never reads. */
  const serveDeaf = async (): Promise<{ transport: Duplex; tunnel: ServerTunnel }> => {
    const { client, server } = await memoryLink();
    const tunnel = create(new ManualClock()).serve(server, defaultServerSettings, (exchange) => exchange.reject(503));
    client.on("error", () => {});
    client.write(Buffer.concat([preface, settings()]));
    return { transport: client, tunnel };
  };
  wire(behaviour, serve, connect);
  malformed(behaviour, serve);
  brokenRules(behaviour, alone, serve);
  brokenOff(behaviour, serve, connect);
  resets(behaviour, serve, connect);
  floods(behaviour, alone, serve, serveDeaf);
  silence(behaviour, serve, connect);
}

type Connect = () => Promise<{ peer: RawPeer; tunnel: ClientTunnel; clock: ManualClock }>;

function settingsOf(payload: Buffer): Map<number, number> {
  const found = new Map<number, number>();
  for (let at = 0; at < payload.length; at += 6) found.set(payload.readUInt16BE(at), payload.readUInt32BE(at + 2));
  return found;
}

function wire(behaviour: Behaviour, serve: Serve, connect: Connect): void {
  for (const side of ["server", "client"] as const) {
    behaviour(`the ${side} announces the settings and the connection window of the contract`, async (t) => {
      const { peer, tunnel } = side === "server" ? await serve() : await connect();
      const own = side === "server" ? defaultServerSettings : defaultClientSettings;
      const sent = settingsOf((await peer.receive(({ type, flags: bits }) => type === frameTypes.settings && (bits & flags.ack) === 0)).payload);
      t.is(sent.get(4), 4 * 1024 * 1024);
      t.is(sent.get(5), 1024 * 1024);
      t.is(sent.get(6), own.maxHeaderBytes);
      t.is(sent.get(3), side === "server" ? 200 : undefined);
      t.is(sent.get(2), side === "server" ? undefined : 0);
      const { payload } = await peer.receive(({ type, stream }) => type === frameTypes.windowUpdate && stream === 0);
      t.is(payload.readUInt32BE(0), 16 * 1024 * 1024 - 65_535);
      tunnel.destroy();
    });
  }

  behaviour("bytes sent before the 200 wait for it, and arrive after it", async (t) => {
    const { peer, exchanges, tunnel } = await serve();
    peer.send(connectHeaders(1, authority), data(1, "early "), data(1, "bird", flags.endStream));
    await until(() => exchanges.length === 1);
    t.deepEqual(
      peer.frames.filter(({ stream }) => stream === 1),
      [],
    );
    const outcome = echo(exchanges[0] as ConnectExchange);
    t.is(await peer.receiveAll(1), "early bird");
    t.is((await outcome).error, undefined);
    tunnel.destroy();
  });

  behaviour("bytes sent before a refusal reach nobody", async (t) => {
    const { peer, exchanges, tunnel } = await serve((exchange) => exchange.reject(401));
    peer.send(connectHeaders(1, authority), data(1, "smuggled"));
    const answer = await peer.receive(({ type, stream }) => type === frameTypes.headers && stream === 1);
    t.not(answer.flags & flags.endStream, 0);
    t.is(exchanges.length, 1);
    await until(() => tunnel.streams === 0);
    tunnel.destroy();
  });

  behaviour("a CONNECT that crosses the GOAWAY of a drain is served, or the GOAWAY says that it was not seen", async (t) => {
    const { peer, tunnel, exchanges } = await serve((exchange) => void echo(exchange));
    await peer.receive(({ type }) => type === frameTypes.settings);
    tunnel.drain();
    peer.send(connectHeaders(1, authority), data(1, "crossing", flags.endStream));
    await peer.receive(({ type }) => type === frameTypes.goaway);
    await settled();
    const promised = peer.frames.filter(({ type }) => type === frameTypes.goaway).map(({ payload }) => payload.readUInt32BE(0));
    if (exchanges.length === 0) t.is(promised.at(-1), 0);
    else t.is(await peer.receiveAll(1), "crossing");
    tunnel.destroy();
  });

  behaviour("an answer without a body carries the status and END_STREAM, and the stream is let go", async (t) => {
    const { peer, tunnel } = await serve((exchange) => exchange.reject(503));
    peer.send(connectHeaders(1, authority));
    const answer = await peer.receive(({ type, stream }) => type === frameTypes.headers && stream === 1);
    t.not(answer.flags & flags.endStream, 0);
    const reset = await peer.receive(({ type, stream }) => type === frameTypes.rstStream && stream === 1);
    t.is(reset.payload.readUInt32BE(0), errorCodes.noError);
    tunnel.destroy();
  });
}

/** What was broken off here must not look whole over there: a reset, and no END_STREAM before it. */
function brokenOff(behaviour: Behaviour, serve: Serve, connect: Connect): void {
  const assertReset = async (t: ExecutionContext, peer: RawPeer): Promise<void> => {
    const { payload } = await peer.receive(({ type, stream }) => type === frameTypes.rstStream && stream === 1);
    t.is(payload.readUInt32BE(0), errorCodes.cancel);
    await settled();
    const ends = peer.frames.filter(({ type, stream, flags: bits }) => stream === 1 && type <= frameTypes.headers && (bits & flags.endStream) !== 0);
    t.deepEqual(ends, []);
  };
  for (const [what, bytes] of [
    ["between two bytes", 7],
    ["with bytes that wait for the window", 200_000],
  ] as const) {
    behaviour(`a server's stream that is broken off ${what} is reset, never ended`, async (t) => {
      const abort = new AbortController();
      const { peer, tunnel } = await serve((exchange) => {
        const [app, near] = duplexPair();
        app.on("error", () => {}).write(Buffer.alloc(bytes));
        void exchange.accept({}).pipe(near, { signal: abort.signal });
      });
      peer.send(connectHeaders(1, authority));
      await peer.receive(({ type }) => type === frameTypes.data);
      await settled();
      abort.abort();
      await assertReset(t, peer);
      await until(() => tunnel.streams === 0);
      tunnel.destroy();
    });

    behaviour(`a client's stream that is broken off ${what} is reset, never ended`, async (t) => {
      const abort = new AbortController();
      const { peer, tunnel } = await connect();
      const opening = tunnel.open({ authority }, { signal: forever });
      await peer.receive(({ type }) => type === frameTypes.headers);
      peer.send(status200(1));
      const [app, near] = duplexPair();
      app.on("error", () => {}).write(Buffer.alloc(bytes));
      const outcome = (await opening).stream.pipe(near, { signal: abort.signal });
      await peer.receive(({ type }) => type === frameTypes.data);
      await settled();
      abort.abort();
      await outcome;
      await assertReset(t, peer);
      await until(() => tunnel.streams === 0);
      tunnel.destroy();
    });
  }

  behaviour("a stream that is dropped by its owner is reset, never ended", async (t) => {
    const { peer, tunnel } = await serve((exchange) => exchange.accept({}).reset());
    peer.send(connectHeaders(1, authority));
    await assertReset(t, peer);
    tunnel.destroy();
  });

  behaviour("a CONNECT that its asker gives up is reset, never ended", async (t) => {
    const { peer, tunnel } = await connect();
    const abort = new AbortController();
    const opening = tunnel.open({ authority }, { signal: abort.signal });
    await peer.receive(({ type }) => type === frameTypes.headers);
    abort.abort(new Error("enough"));
    await t.throwsAsync(opening, { message: "enough" });
    await assertReset(t, peer);
    tunnel.destroy();
  });

  behaviour("a refusal that the server keeps open is reset, never ended", async (t) => {
    const { peer, tunnel } = await connect();
    const opening = tunnel.open({ authority }, { signal: forever });
    await peer.receive(({ type }) => type === frameTypes.headers);
    peer.send(frame(frameTypes.headers, flags.endHeaders, 1, headerBlock([[":status", "503"]])));
    await t.throwsAsync(opening, { code: "HBONE_REFUSED" });
    await assertReset(t, peer);
    tunnel.destroy();
  });
}

function resets(behaviour: Behaviour, serve: Serve, connect: Connect): void {
  const codes: readonly (readonly [string, number, string | undefined])[] = [
    ["NO_ERROR", errorCodes.noError, undefined],
    ["CANCEL", errorCodes.cancel, undefined],
    ["STREAM_CLOSED", errorCodes.streamClosed, undefined],
    ["INTERNAL_ERROR", errorCodes.internalError, "HBONE_RESET"],
    ["PROTOCOL_ERROR", errorCodes.protocolError, "HBONE_RESET"],
    ["an unknown code", 0xbeef, "HBONE_RESET"],
  ];
  for (const [what, code, expected] of codes) {
    behaviour(`a reset with ${what} ${expected === undefined ? "is a clean end" : "is an error"} for a client's stream`, async (t) => {
      const { peer, tunnel } = await connect();
      const opening = tunnel.open({ authority }, { signal: forever });
      await peer.receive(({ type }) => type === frameTypes.headers);
      peer.send(status200(1));
      const { stream } = await opening;
      const [app, near] = duplexPair();
      const outcome = stream.pipe(near, { signal: forever });
      let got = "";
      app.on("data", (chunk) => {
        got += chunk;
      });
      const ended = new Promise((resolve) => app.once("end", resolve));
      peer.send(data(1, "before the reset"), rstStream(1, code));
      await ended;
      t.is(got, "before the reset");
      const { error, received } = await outcome;
      t.is(errorCode(error), expected);
      t.is(received, 16);
      await until(() => tunnel.streams === 0);
      t.true(tunnel.usable);
      tunnel.destroy();
    });

    behaviour(`a reset with ${what} ${expected === undefined ? "is a clean end" : "is an error"} for a server's stream`, async (t) => {
      const outcomes: Promise<PipeOutcome>[] = [];
      const { peer, tunnel } = await serve((exchange) => outcomes.push(echo(exchange)));
      peer.send(connectHeaders(1, authority));
      await peer.receive(({ type }) => type === frameTypes.headers);
      peer.send(rstStream(1, code));
      t.is(errorCode((await outcomes[0])?.error), expected);
      await stillServes(t, peer, 3);
      tunnel.destroy();
    });
  }

  for (const [when, abandon] of [
    ["with its application still there", undefined],
    ["whose application said all it had to say", (app: Duplex) => void app.end()],
    ["whose application is gone", (_app: Duplex, near: Duplex) => void near.destroy()],
  ] as const) {
    behaviour(`an end with NO_ERROR lets a stream go that waits for its window, ${when}`, async (t) => {
      const { peer, tunnel } = await connect();
      const opening = tunnel.open({ authority }, { signal: forever });
      await peer.receive(({ type }) => type === frameTypes.headers);
      peer.send(status200(1));
      const { stream } = await opening;
      const [app, near] = duplexPair();
      app.on("error", () => {}).resume();
      const outcome = stream.pipe(near, { signal: forever });
      // The peer opens no window beyond the first 65,535 bytes (RFC 9113 6.9.2).
      app.write(Buffer.alloc(200_000));
      await until(() => peer.frames.reduce((sum, { type, payload }) => sum + (type === frameTypes.data ? payload.length : 0), 0) === 65_535);
      abandon?.(app, near);
      await new Promise((resolve) => setImmediate(resolve));
      peer.send(data(1, "enough", flags.endStream), rstStream(1, errorCodes.noError));
      if (abandon === undefined) app.once("end", () => app.end());
      t.is((await outcome).error, undefined);
      await until(() => tunnel.streams === 0);
      t.true(tunnel.usable);
      tunnel.destroy();
    });
  }

  behaviour("a reset before the answer rejects the open, and a refused stream counts as a lost tunnel", async (t) => {
    const { peer, tunnel } = await connect();
    const first = tunnel.open({ authority }, { signal: forever });
    await peer.receive(({ type, stream }) => type === frameTypes.headers && stream === 1);
    peer.send(rstStream(1, errorCodes.internalError));
    await t.throwsAsync(first, { code: "HBONE_RESET" });
    const second = tunnel.open({ authority }, { signal: forever });
    await peer.receive(({ type, stream }) => type === frameTypes.headers && stream === 3);
    peer.send(rstStream(3, errorCodes.refused));
    await t.throwsAsync(second, { code: "HBONE_TUNNEL_LOST" });
    tunnel.destroy();
  });

  behaviour("a GOAWAY that did not see the CONNECT rejects it as lost and closes the tunnel to new streams", async (t) => {
    const { peer, tunnel, clock } = await connect();
    const opening = tunnel.open({ authority }, { signal: forever });
    await peer.receive(({ type }) => type === frameTypes.headers);
    peer.send(frame(frameTypes.goaway, 0, 0, Buffer.concat([uint32(0), uint32(errorCodes.noError)])));
    await t.throwsAsync(opening, { code: "HBONE_TUNNEL_LOST" });
    t.false(tunnel.usable);
    // The peer does not close its end; the tunnel does not wait for it for ever.
    await settled();
    await clock.advance(10_000);
    t.is(await tunnel.closed, undefined);
  });

  behaviour("a GOAWAY with an error ends every stream with an error", async (t) => {
    const { peer, tunnel } = await connect();
    const opening = tunnel.open({ authority }, { signal: forever });
    await peer.receive(({ type }) => type === frameTypes.headers);
    peer.send(status200(1));
    const [app, near] = duplexPair();
    app.resume();
    const outcome = (await opening).stream.pipe(near, { signal: forever });
    peer.send(frame(frameTypes.goaway, 0, 0, Buffer.concat([uint32(1), uint32(errorCodes.calm)])));
    t.is(errorCode((await outcome).error), "HBONE_TUNNEL_LOST");
    t.regex(String(await tunnel.closed), /ENHANCE_YOUR_CALM/);
  });

  behaviour("an answer that is not 200 is a refusal, whatever it is", async (t) => {
    const { peer, tunnel } = await connect();
    const opening = tunnel.open({ authority }, { signal: forever });
    await peer.receive(({ type }) => type === frameTypes.headers);
    peer.send(frame(frameTypes.headers, flags.endHeaders | flags.endStream, 1, headerBlock([[":status", "302"]])));
    await t.throwsAsync(opening, { code: "HBONE_REFUSED", message: /302/ });
    tunnel.destroy();
  });
}

function silence(behaviour: Behaviour, serve: Serve, connect: Connect): void {
  behaviour("a client that answers no PING is gone after 10 and 20 seconds", async (t) => {
    const { peer, tunnel, clock } = await serve();
    await peer.receive(({ type }) => type === frameTypes.settings);
    await clock.advance(9_999);
    t.is(pings(peer), 0);
    await clock.advance(1);
    await until(() => pings(peer) === 1);
    await clock.advance(19_999);
    t.false(peer.ended);
    await clock.advance(1);
    t.is(errorCode(await tunnel.closed), "HBONE_PING_TIMEOUT");
    await peer.closed();
  });

  behaviour("a server that answers no PING is gone after 10 and 20 seconds, and its streams with it", async (t) => {
    const { peer, tunnel, clock } = await connect();
    const opening = tunnel.open({ authority }, { signal: forever });
    await peer.receive(({ type }) => type === frameTypes.headers);
    peer.send(status200(1));
    const [app, near] = duplexPair();
    app.resume();
    const outcome = (await opening).stream.pipe(near, { signal: forever });
    await clock.advance(10_000);
    await until(() => pings(peer) === 1);
    await clock.advance(20_000);
    t.is(errorCode((await outcome).error), "HBONE_TUNNEL_LOST");
    t.is(errorCode(await tunnel.closed), "HBONE_PING_TIMEOUT");
    t.false(tunnel.usable);
  });

  behaviour("a peer that answers is asked again 10 seconds after each answer", async (t) => {
    const { peer, tunnel, clock } = await serve();
    await peer.receive(({ type }) => type === frameTypes.settings);
    for (let round = 1; round <= 3; round++) {
      await clock.advance(5_000);
      // That it speaks is no answer.
      peer.send(frame(frameTypes.windowUpdate, 0, 0, uint32(1)));
      await settled();
      await clock.advance(5_000);
      await until(() => pings(peer) === round);
      const asked = peer.frames.filter(({ type }) => type === frameTypes.ping).at(-1);
      peer.send(frame(frameTypes.ping, flags.ack, 0, asked?.payload));
      await settled();
    }
    t.is(pings(peer), 3);
    tunnel.destroy();
  });
}

function pings(peer: RawPeer): number {
  return peer.frames.filter(({ type, flags: bits }) => type === frameTypes.ping && (bits & flags.ack) === 0).length;
}

async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}
