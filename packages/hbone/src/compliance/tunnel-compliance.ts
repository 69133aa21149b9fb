/**
 * What every engine must do with two well-behaved ends (ztunnel contract 1.4-1.8): bytes, half-closes, ends, limits.
 * `tunnelCompliance` registers one test per behaviour and kind of connection.
 */
import { createHash } from "node:crypto";
import { type Duplex, duplexPair, Readable } from "node:stream";
import { errorCode, MeshError } from "@fairway/runtime";
import type { ExecutionContext, TestFn } from "ava";
import type { ClientTunnel, ConnectExchange, PipeOutcome, ServerTunnel, TunnelEngine, TunnelSettings, TunnelStream } from "../engine.ts";
import { defaultClientSettings, defaultServerSettings } from "../settings.ts";
import { type Link, tcpLink } from "./link.ts";

export interface Subject {
  readonly engine: TunnelEngine;
  readonly connections: ReadonlyMap<string, () => Promise<Link>>;
}

export const forever: AbortSignal = new AbortController().signal;
const authority = "10.0.0.1:80";

export interface Tunnel extends Disposable {
  readonly client: ClientTunnel;
  readonly server: ServerTunnel;
  readonly link: Link;
}

/** A process that has hardly any of its machine misses the deadline of its own PINGs, which other tests are about. */
export const withoutPings: Pick<TunnelSettings, "pingIntervalMs"> = { pingIntervalMs: 3_600_000 };

/** Both ends of a tunnel over a new connection. */
export async function makeTunnel(
  engine: TunnelEngine,
  connect: () => Promise<Link>,
  onConnect: (exchange: ConnectExchange) => void,
  overrides: { client?: Partial<TunnelSettings>; server?: Partial<TunnelSettings> } = {},
): Promise<Tunnel> {
  const link = await connect();
  const server = engine.serve(link.server, { ...defaultServerSettings, ...withoutPings, ...overrides.server }, onConnect);
  const client = await engine.connect(link.client, { ...defaultClientSettings, ...withoutPings, ...overrides.client }, { signal: forever });
  return {
    client,
    server,
    link,
    [Symbol.dispose]: () => {
      client.destroy();
      server.destroy();
    },
  };
}

interface End {
  /** What the application holds. */
  readonly app: Duplex;
  readonly outcome: Promise<PipeOutcome>;
  readonly abort: (reason: Error) => void;
  readonly stream: TunnelStream;
}

function attach(stream: TunnelStream, [app, near]: readonly [Duplex, Duplex] = duplexPair()): End {
  const controller = new AbortController();
  app.on("error", () => {});
  return { app, outcome: stream.pipe(near, { signal: controller.signal }), abort: (reason) => controller.abort(reason), stream };
}

/** One open stream with an application at each end. */
async function openPair(
  engine: TunnelEngine,
  connect: () => Promise<Link>,
  sockets: { near?: readonly [Duplex, Duplex]; far?: readonly [Duplex, Duplex] } = {},
): Promise<Tunnel & { near: End; far: End }> {
  const far = Promise.withResolvers<End>();
  const tunnel = await makeTunnel(engine, connect, (exchange) => far.resolve(attach(exchange.accept({}), sockets.far)));
  const { stream } = await tunnel.client.open({ authority }, { signal: forever });
  return { ...tunnel, near: attach(stream, sockets.near), far: await far.promise };
}

async function readAll(stream: Duplex): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

async function digest(stream: Duplex): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash("sha256");
  let bytes = 0;
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) {
    bytes += chunk.length;
    hash.update(chunk);
  }
  return { bytes, sha256: hash.digest("hex") };
}

/** Deterministic bytes that repeat at no power of two. */
function* pattern(total: number, seed: number): Generator<Buffer> {
  const block = Buffer.alloc(65_521);
  for (let index = 0; index < block.length; index++) block[index] = (index * 31 + seed) & 255;
  for (let sent = 0; sent < total; sent += block.length) yield block.subarray(0, Math.min(block.length, total - sent));
}

function echo(exchange: ConnectExchange): void {
  const { app } = attach(exchange.accept({}));
  app.pipe(app);
}

export function tunnelCompliance(test: TestFn, { engine, connections }: Subject): void {
  for (const [kind, connect] of connections) {
    const behaviour = (name: string, run: (t: ExecutionContext) => Promise<void>): void => {
      test(`${engine.name} over ${kind}: ${name}`, run);
    };
    copies(behaviour, engine, connect);
    endings(behaviour, engine, connect);
    answers(behaviour, engine, connect);
    limits(behaviour, engine, connect);
  }
}

type Behaviour = (name: string, run: (t: ExecutionContext) => Promise<void>) => void;

function copies(behaviour: Behaviour, engine: TunnelEngine, connect: () => Promise<Link>): void {
  behaviour("bytes, FINs and counts are the same at both ends", async (t) => {
    using pair = await openPair(engine, connect);
    pair.near.app.end("question");
    t.is(await readAll(pair.far.app), "question");
    pair.far.app.end("an answer");
    t.is(await readAll(pair.near.app), "an answer");
    t.deepEqual(await pair.near.outcome, { sent: 8, received: 9, error: undefined });
    t.deepEqual(await pair.far.outcome, { sent: 9, received: 8, error: undefined });
  });

  behaviour("the server's FIN is carried while the client goes on sending", async (t) => {
    using pair = await openPair(engine, connect);
    pair.far.app.end("bye");
    t.is(await readAll(pair.near.app), "bye");
    pair.near.app.write("still ");
    pair.near.app.end("here");
    t.is(await readAll(pair.far.app), "still here");
    t.is((await pair.near.outcome).error, undefined);
    t.is((await pair.far.outcome).error, undefined);
  });

  behaviour("a server that speaks first is heard before the client says anything", async (t) => {
    using pair = await openPair(engine, connect);
    pair.far.app.write("220 ready");
    const [greeting] = await new Promise<[Buffer]>((resolve) => pair.near.app.once("data", (chunk) => resolve([chunk])));
    t.is(greeting.toString(), "220 ready");
  });

  behaviour("64 MiB arrive whole in both directions at once", async (t) => {
    using pair = await openPair(engine, connect);
    const total = 64 * 1024 * 1024;
    Readable.from(pattern(total, 1)).pipe(pair.near.app);
    Readable.from(pattern(total, 2)).pipe(pair.far.app);
    const [there, back] = await Promise.all([digest(pair.far.app), digest(pair.near.app)]);
    const expected = (seed: number) => {
      const hash = createHash("sha256");
      for (const block of pattern(total, seed)) hash.update(block);
      return { bytes: total, sha256: hash.digest("hex") };
    };
    t.deepEqual(there, expected(1));
    t.deepEqual(back, expected(2));
    t.deepEqual(await pair.near.outcome, { sent: total, received: total, error: undefined });
  });

  behaviour("many streams that send in bulk both ways do not wait for each other for ever", async (t) => {
    const total = 2 * 1024 * 1024;
    const streams = 20;
    const digests: Promise<{ bytes: number }>[] = [];
    const exchangeBulk = (stream: TunnelStream): void => {
      const { app } = attach(stream);
      Readable.from(pattern(total, 3)).pipe(app);
      digests.push(digest(app));
    };
    using tunnel = await makeTunnel(engine, connect, (exchange) => exchangeBulk(exchange.accept({})));
    for (let index = 0; index < streams; index++) exchangeBulk((await tunnel.client.open({ authority }, { signal: forever })).stream);
    await until(() => digests.length === 2 * streams);
    for (const { bytes } of await Promise.all(digests)) t.is(bytes, total);
  });

  behaviour("progress is reported as it happens", async (t) => {
    using tunnel = await makeTunnel(engine, connect, echo);
    const { stream } = await tunnel.client.open({ authority }, { signal: forever });
    const [app, near] = duplexPair();
    let [sent, received] = [0, 0];
    const outcome = stream.pipe(near, {
      signal: forever,
      onBytes: (out, back) => {
        sent += out;
        received += back;
      },
    });
    app.write("12345");
    await new Promise((resolve) => app.once("data", resolve));
    t.deepEqual({ sent, received }, { sent: 5, received: 5 });
    app.end();
    await outcome;
  });

  behaviour("a stream as a duplex carries bytes and both FINs", async (t) => {
    using tunnel = await makeTunnel(engine, connect, echo);
    const { stream } = await tunnel.client.open({ authority }, { signal: forever });
    const duplex = stream.duplex();
    duplex.end("inside");
    t.is(await readAll(duplex), "inside");
  });
}

function endings(behaviour: Behaviour, engine: TunnelEngine, connect: () => Promise<Link>): void {
  for (const side of ["near", "far"] as const) {
    const other = side === "near" ? "far" : "near";
    behaviour(`aborting the ${side} copy ends the ${other} one cleanly and destroys the socket`, async (t) => {
      using pair = await openPair(engine, connect);
      pair[side].app.write("half a sentence");
      await new Promise((resolve) => pair[other].app.once("data", resolve));
      const reason = new MeshError("TEST_POLICY", "no longer permitted");
      pair[side].abort(reason);
      const outcome = await pair[side].outcome;
      t.is(outcome.error, reason);
      t.is(outcome.sent, 15);
      pair[other].app.resume();
      t.deepEqual(await pair[other].outcome, { sent: 0, received: 15, error: undefined });
      t.is(pair.client.streams, 0);
    });
  }

  behaviour("a TCP reset of the application is an end of bytes, not an error", async (t) => {
    const { client: app, server: near } = await tcpLink();
    using pair = await openPair(engine, connect, { near: [app, near] });
    app.write("last words");
    await new Promise((resolve) => pair.far.app.once("data", resolve));
    app.resetAndDestroy();
    t.deepEqual(await pair.near.outcome, { sent: 10, received: 0, error: undefined });
    pair.far.app.resume();
    t.is((await pair.far.outcome).error, undefined);
  });

  behaviour("a lost connection is an error at both ends, for the stream and the tunnel", async (t) => {
    using pair = await openPair(engine, connect);
    pair.near.app.write("x");
    await new Promise((resolve) => pair.far.app.once("data", resolve));
    pair.near.app.resume();
    pair.link.client.destroy();
    pair.link.server.destroy();
    t.is(errorCode((await pair.near.outcome).error), "HBONE_TUNNEL_LOST");
    t.is(errorCode((await pair.far.outcome).error), "HBONE_TUNNEL_LOST");
    await Promise.all([pair.client.closed, pair.server.closed]);
    t.false(pair.client.usable);
    await t.throwsAsync(pair.client.open({ authority }, { signal: forever }), { code: "HBONE_TUNNEL_LOST" });
  });

  behaviour("a draining server lets streams finish, and then both ends close", async (t) => {
    using pair = await openPair(engine, connect);
    pair.server.drain();
    pair.near.app.write("one");
    t.is(String(await new Promise((resolve) => pair.far.app.once("data", resolve))), "one");
    await until(() => !pair.client.usable);
    pair.far.app.end("two");
    pair.near.app.end();
    t.is(await readAll(pair.near.app), "two");
    t.is((await pair.near.outcome).error, undefined);
    t.is(await pair.client.closed, undefined);
    t.is(await pair.server.closed, undefined);
  });

  behaviour("a draining client opens nothing new and closes after its last stream", async (t) => {
    using pair = await openPair(engine, connect);
    pair.client.drain();
    t.false(pair.client.usable);
    await t.throwsAsync(pair.client.open({ authority }, { signal: forever }), { code: "HBONE_TUNNEL_LOST" });
    pair.near.app.end("still carried");
    t.is(await readAll(pair.far.app), "still carried");
    pair.far.app.end();
    pair.near.app.resume();
    t.is(await pair.client.closed, undefined);
    t.is(await pair.server.closed, undefined);
  });
}

function answers(behaviour: Behaviour, engine: TunnelEngine, connect: () => Promise<Link>): void {
  behaviour("headers arrive as they were sent, and the answer's baggage comes back", async (t) => {
    const request = {
      authority: "[fd00::1]:8080",
      baggage: "k8s.namespace.name=shop",
      forwarded: 'for="10.0.0.9:4711"',
      traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
      forwardedNetwork: "east",
    };
    const seen = Promise.withResolvers<unknown>();
    using tunnel = await makeTunnel(engine, connect, (exchange) => {
      seen.resolve(exchange.request);
      exchange.accept({ baggage: "service.name=cart" });
    });
    const { baggage } = await tunnel.client.open(request, { signal: forever });
    t.deepEqual(await seen.promise, request);
    t.is(baggage, "service.name=cart");
  });

  behaviour("the common network, whose name is empty, is told like any other", async (t) => {
    const seen = Promise.withResolvers<string | undefined>();
    using tunnel = await makeTunnel(engine, connect, (exchange) => {
      seen.resolve(exchange.request.forwardedNetwork);
      exchange.accept({});
    });
    await tunnel.client.open({ authority, forwardedNetwork: "" }, { signal: forever });
    t.is(await seen.promise, "");
  });

  for (const status of [400, 401, 503] as const) {
    behaviour(`a refusal with ${status} says so, and the tunnel lives on`, async (t) => {
      let refuse = true;
      using tunnel = await makeTunnel(engine, connect, (exchange) => {
        if (refuse) exchange.reject(status);
        else echo(exchange);
      });
      const error = await t.throwsAsync(tunnel.client.open({ authority }, { signal: forever }), { instanceOf: MeshError, code: "HBONE_REFUSED" });
      t.is(error.details["status"], status);
      refuse = false;
      const { app } = attach((await tunnel.client.open({ authority }, { signal: forever })).stream);
      app.end("ok");
      t.is(await readAll(app), "ok");
    });
  }

  behaviour("a client that gives up before the answer is seen as cancelled by the server", async (t) => {
    const asked = Promise.withResolvers<ConnectExchange>();
    using tunnel = await makeTunnel(engine, connect, (exchange) => asked.resolve(exchange));
    const controller = new AbortController();
    const opening = tunnel.client.open({ authority }, { signal: controller.signal });
    const { cancelled, accept } = bind(await asked.promise);
    t.false(cancelled.aborted);
    const reason = new MeshError("TEST_GAVE_UP", "the application left");
    controller.abort(reason);
    t.is(await t.throwsAsync(opening), reason);
    await until(() => cancelled.aborted);
    const late = attach(accept());
    late.app.resume();
    t.is((await late.outcome).received, 0);
    await until(() => tunnel.server.streams === 0 && tunnel.client.streams === 0);
  });

  behaviour("a second answer to one CONNECT is refused", async (t) => {
    const asked = Promise.withResolvers<ConnectExchange>();
    using tunnel = await makeTunnel(engine, connect, (exchange) => asked.resolve(exchange));
    const opening = tunnel.client.open({ authority }, { signal: forever });
    const exchange = await asked.promise;
    exchange.reject(503);
    t.throws(() => exchange.accept({}), { code: "HBONE_ANSWERED_TWICE" });
    await t.throwsAsync(opening, { code: "HBONE_REFUSED" });
  });

  behaviour("an aborted signal stops connect and open before anything is sent", async (t) => {
    const link = await connect();
    const reason = new MeshError("TEST_LATE", "too late");
    t.is(await t.throwsAsync(engine.connect(link.client, defaultClientSettings, { signal: AbortSignal.abort(reason) })), reason);
    t.true(link.client.destroyed);
    link.server.destroy();
    using tunnel = await makeTunnel(engine, connect, echo);
    t.is(await t.throwsAsync(tunnel.client.open({ authority }, { signal: AbortSignal.abort(reason) })), reason);
    t.is(tunnel.client.streams, 0);
  });

  behaviour("aborting connect while the peer says nothing rejects with the reason", async (t) => {
    const link = await connect();
    const controller = new AbortController();
    const connecting = engine.connect(link.client, defaultClientSettings, { signal: controller.signal });
    const reason = new MeshError("TEST_LATE", "too late");
    setImmediate(() => controller.abort(reason));
    t.is(await t.throwsAsync(connecting), reason);
    link.server.destroy();
  });

  behaviour("an authority that is none is refused before it is sent", async (t) => {
    using tunnel = await makeTunnel(engine, connect, echo);
    for (const bad of ["", "10.0.0.1", "10.0.0.1:0", "a b:80", "x\r\ny:80", "[fe80::1%eth0]:80", "999.1.1.1:80"]) {
      await t.throwsAsync(tunnel.client.open({ authority: bad }, { signal: forever }), { code: "HBONE_BAD_REQUEST" }, bad);
    }
    t.is(tunnel.client.streams, 0);
  });
}

function limits(behaviour: Behaviour, engine: TunnelEngine, connect: () => Promise<Link>): void {
  behaviour("a reader that stops holds back its writer, and nobody else", async (t) => {
    using pair = await openPair(engine, connect);
    let written = 0;
    const block = Buffer.alloc(64 * 1024);
    const most = 24 * 1024 * 1024;
    const pump = (): void => {
      while (written < most) {
        written += block.length;
        if (!pair.near.app.write(block)) {
          pair.near.app.once("drain", pump);
          return;
        }
      }
    };
    pump();
    let before = -1;
    while (before !== written) {
      before = written;
      for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
    // One stream window in flight, and the buffers of the sockets and streams on the way.
    t.true(written < defaultServerSettings.streamWindow + 2 * 1024 * 1024, `${written} bytes were taken though nobody reads`);
    const { stream } = await pair.client.open({ authority }, { signal: forever });
    stream.reset();
  });

  behaviour("the stream limit is the smaller of both ends' and frees up again", async (t) => {
    using tunnel = await makeTunnel(engine, connect, echo, { server: { maxStreams: 2 } });
    const first = attach((await tunnel.client.open({ authority }, { signal: forever })).stream);
    attach((await tunnel.client.open({ authority }, { signal: forever })).stream);
    t.is(tunnel.client.streams, 2);
    t.false(tunnel.client.usable);
    await t.throwsAsync(tunnel.client.open({ authority }, { signal: forever }), { code: "HBONE_TUNNEL_FULL" });
    first.app.resume().end();
    await first.outcome;
    await until(() => tunnel.client.usable);
    t.is(tunnel.client.streams, 1);
  });

  behaviour("1,000 streams over ten tunnels each echo their own bytes", async (t) => {
    const tunnels = await Promise.all(Array.from({ length: 10 }, () => makeTunnel(engine, connect, echo)));
    const replies = tunnels.flatMap(({ client }, tunnel) =>
      Array.from({ length: 100 }, async (_, index) => {
        const { app, outcome } = attach((await client.open({ authority }, { signal: forever })).stream);
        app.end(`${tunnel}/${index}`);
        return { expected: `${tunnel}/${index}`, reply: await readAll(app), ...(await outcome) };
      }),
    );
    for (const { expected, reply, sent, received, error } of await Promise.all(replies)) {
      t.deepEqual({ reply, sent, received, error }, { reply: expected, sent: expected.length, received: expected.length, error: undefined });
    }
    await until(() => tunnels.every(({ client, server }) => client.streams === 0 && server.streams === 0));
    for (const tunnel of tunnels) tunnel[Symbol.dispose]();
  });
}

function bind(exchange: ConnectExchange): { cancelled: AbortSignal; accept: () => TunnelStream } {
  return { cancelled: exchange.cancelled, accept: () => exchange.accept({}) };
}

/** Lets the event loop turn until `condition` holds. */
export async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error("the condition did not come true");
    await new Promise((resolve) => setImmediate(resolve));
  }
}
