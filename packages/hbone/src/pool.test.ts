/** The pool over tunnels whose every end the test controls. */
import { type Duplex, duplexPair } from "node:stream";
import { spiffeId } from "@fairway/model";
import { createRegistry, ManualClock, MeshError } from "@fairway/runtime";
import test from "ava";
import { frameTypes, RawPeer, rstStream } from "./compliance/raw-peer.ts";
import { forever, until } from "./compliance/tunnel-compliance.ts";
import type { ServerTunnel, TunnelKey, TunnelStream } from "./engine.ts";
import { createHboneMetrics } from "./metrics.ts";
import { createNodeHttp2Engine } from "./node-http2-engine.ts";
import { type TunnelDial, TunnelPool, type TunnelPoolOptions } from "./pool.ts";
import { defaultServerSettings } from "./settings.ts";

const source = spiffeId({ trustDomain: "cluster.local", namespace: "a", serviceAccount: "client" });
const expected = [spiffeId({ trustDomain: "cluster.local", namespace: "b", serviceAccount: "server" })];
const key: TunnelKey = { owner: "pod-1", source, expected, workload: "uid-1", address: "10.0.0.1:15008" };
const request = { authority: "10.0.0.1:80" };
const idleMs = 5 * 60_000;

interface Rig {
  readonly pool: TunnelPool;
  readonly clock: ManualClock;
  readonly dial: TunnelDial;
  readonly servers: ServerTunnel[];
  open(target?: TunnelKey): Promise<TunnelStream>;
}

function rig(options: Partial<TunnelPoolOptions> = {}, maxStreams: number = defaultServerSettings.maxStreams): Rig {
  const clock = new ManualClock();
  const engine = createNodeHttp2Engine(clock);
  const servers: ServerTunnel[] = [];
  const pool = new TunnelPool({ engine, clock, ...options });
  const dial = async (): Promise<Duplex> => {
    const [client, server] = duplexPair();
    servers.push(engine.serve(server, { ...defaultServerSettings, maxStreams }, (exchange) => void exchange.accept({ baggage: "service.name=x" })));
    return client;
  };
  return { pool, clock, dial, servers, open: async (target = key) => (await pool.open(target, request, dial, { signal: forever })).stream };
}

test("concurrent first requests share one dial", async (t) => {
  const { pool, open, servers } = rig();
  await Promise.all(Array.from({ length: 50 }, () => open()));
  t.is(servers.length, 1);
  t.is(servers[0]?.streams, 50);
  await pool[Symbol.asyncDispose]();
});

test("a full tunnel gets a sibling, and is used again below its limit", async (t) => {
  const { pool, open, servers } = rig({}, 10);
  const streams = await Promise.all(Array.from({ length: 25 }, () => open()));
  t.deepEqual(
    servers.map(({ streams: count }) => count),
    [10, 10, 5],
  );
  streams[0]?.reset();
  await until(() => servers[0]?.streams === 9);
  await open();
  t.is(servers[0]?.streams, 10);
  t.is(servers.length, 3);
  await pool[Symbol.asyncDispose]();
});

test("every part of the key makes a tunnel of its own", async (t) => {
  const { pool, open, servers } = rig();
  await open();
  await open({ ...key, owner: "pod-2" });
  await open({ ...key, source: spiffeId({ trustDomain: "cluster.local", namespace: "a", serviceAccount: "other" }) });
  await open({ ...key, expected: [] });
  await open({ ...key, workload: "uid-2" });
  await open({ ...key, workload: undefined });
  await open({ ...key, address: "10.0.0.2:15008" });
  t.is(servers.length, 7);
  await open({ ...key, expected: [...expected] });
  t.is(servers.length, 7);
  await pool[Symbol.asyncDispose]();
});

test("a failed dial rejects everybody who waits, with the same error, and is not remembered", async (t) => {
  const { pool, open } = rig();
  const failure = new MeshError("TEST_REFUSED", "nobody listens");
  let dials = 0;
  const failing: TunnelDial = async () => {
    dials += 1;
    throw failure;
  };
  const waiting = Array.from({ length: 5 }, () => pool.open(key, request, failing, { signal: forever }));
  for (const result of await Promise.allSettled(waiting)) t.is(result.status === "rejected" ? result.reason : undefined, failure);
  t.is(dials, 1);
  t.is(pool.size, 0);
  await open();
  t.is(pool.size, 1);
  await pool[Symbol.asyncDispose]();
});

test("one waiter that gives up does not stop the dial; the last one does", async (t) => {
  const { pool } = rig();
  let dialled: AbortSignal | undefined;
  const stuck: TunnelDial = (signal) => {
    dialled = signal;
    return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  };
  const [first, second] = [new AbortController(), new AbortController()];
  const waiting = [first, second].map(({ signal }) => pool.open(key, request, stuck, { signal }));
  const settled = Promise.allSettled(waiting);
  const reason = new MeshError("TEST_LEFT", "the application left");
  first.abort(reason);
  await new Promise((resolve) => setImmediate(resolve));
  t.false(dialled?.aborted);
  second.abort(reason);
  t.true(dialled?.aborted);
  for (const result of await settled) t.is(result.status === "rejected" ? result.reason : undefined, reason);
  await pool[Symbol.asyncDispose]();
});

test("a request that arrives while an abandoned dial still ends gets a dial of its own", async (t) => {
  const { pool, dial } = rig();
  let release: (error: Error) => void = () => {};
  const slow: TunnelDial = () => new Promise((_, reject) => (release = reject));
  const controller = new AbortController();
  const abandoned = pool.open(key, request, slow, { signal: controller.signal });
  controller.abort(new MeshError("TEST_LEFT", "left"));
  await t.throwsAsync(abandoned, { code: "TEST_LEFT" });
  const opened = pool.open(key, request, dial, { signal: forever });
  release(new Error("too late"));
  t.is((await opened).baggage, "service.name=x");
  await pool[Symbol.asyncDispose]();
});

test("tunnels without streams are released after five idle minutes, those with streams are kept", async (t) => {
  const { pool, open, clock } = rig();
  const stream = await open();
  const other = await open({ ...key, owner: "pod-2" });
  t.is(pool.size, 2);
  other.reset();
  // Only what the pool itself schedules may run here: PINGs of the tunnels would wait for answers in real time.
  for (let passed = 0; passed < idleMs + 60_000; passed += 5_000) {
    await clock.advance(5_000);
    for (let turn = 0; turn < 6; turn++) await new Promise((resolve) => setImmediate(resolve));
  }
  t.is(pool.size, 1);
  stream.reset();
  for (let passed = 0; passed < idleMs + 60_000; passed += 5_000) {
    await clock.advance(5_000);
    for (let turn = 0; turn < 6; turn++) await new Promise((resolve) => setImmediate(resolve));
  }
  t.is(pool.size, 0);
  await pool[Symbol.asyncDispose]();
});

test("above the bound the least recently used tunnel goes, and its streams finish", async (t) => {
  const { pool, open, servers } = rig({ maxTunnels: 2 });
  await open({ ...key, owner: "one" });
  await open({ ...key, owner: "two" });
  await open({ ...key, owner: "one" });
  await open({ ...key, owner: "three" });
  t.is(pool.size, 2);
  await open({ ...key, owner: "one" });
  t.is(servers.length, 3);
  t.is(servers[1]?.streams, 1);
  await open({ ...key, owner: "two" });
  t.is(servers.length, 4);
  await pool[Symbol.asyncDispose]();
});

test("a tunnel that was lost is replaced", async (t) => {
  const { pool, open, servers } = rig();
  await open();
  servers[0]?.destroy();
  await until(() => pool.size === 0);
  await open();
  t.is(servers.length, 2);
  await pool[Symbol.asyncDispose]();
});

test("a draining tunnel is passed over", async (t) => {
  const { pool, open, servers } = rig();
  const stream = await open();
  servers[0]?.drain();
  await new Promise((resolve) => setTimeout(resolve, 5));
  await open();
  t.is(servers.length, 2);
  t.is(servers[0]?.streams, 1);
  stream.reset();
  await pool[Symbol.asyncDispose]();
});

test("a CONNECT that its tunnel refused goes over a fresh one, once", async (t) => {
  const { pool, dial } = rig();
  let dials = 0;
  const flaky: TunnelDial = async (signal) => {
    dials += 1;
    if (dials > 1) return dial(signal);
    const [client, server] = duplexPair();
    const peer = new RawPeer(server, "server");
    void peer.receive(({ type }) => type === frameTypes.headers).then(() => peer.send(rstStream(1, 7)));
    return client;
  };
  t.is((await pool.open(key, request, flaky, { signal: forever })).baggage, "service.name=x");
  t.is(dials, 2);
  const refusing: TunnelDial = async () => {
    dials += 1;
    const [client, server] = duplexPair();
    const peer = new RawPeer(server, "server");
    void peer.receive(({ type }) => type === frameTypes.headers).then(() => peer.end());
    return client;
  };
  dials = 0;
  await t.throwsAsync(pool.open({ ...key, owner: "unlucky" }, request, refusing, { signal: forever }), { code: "HBONE_TUNNEL_LOST" });
  t.is(dials, 2);
  await pool[Symbol.asyncDispose]();
});

test("a refusal by status is not retried and leaves the tunnel in the pool", async (t) => {
  const { pool } = rig();
  const dial: TunnelDial = async () => {
    const [client, server] = duplexPair();
    createNodeHttp2Engine(new ManualClock()).serve(server, defaultServerSettings, (exchange) => exchange.reject(401));
    return client;
  };
  await t.throwsAsync(pool.open(key, request, dial, { signal: forever }), { code: "HBONE_REFUSED" });
  t.is(pool.size, 1);
  await pool[Symbol.asyncDispose]();
});

test("evicting a workload forgets its tunnels, also those being dialled, and lets streams finish", async (t) => {
  const { pool, open, servers, dial } = rig();
  await open();
  await open({ ...key, workload: "uid-2" });
  pool.evictWorkload("uid-1");
  t.is(pool.size, 1);
  t.is(servers[0]?.streams, 1);
  let release: () => void = () => {};
  const slow: TunnelDial = async (signal) => {
    await new Promise<void>((resolve) => (release = resolve));
    return dial(signal);
  };
  const waiting = pool.open({ ...key, workload: "uid-3" }, request, slow, { signal: forever });
  pool.evictWorkload("uid-3");
  release();
  await t.throwsAsync(waiting, { code: "HBONE_EVICTED" });
  await until(() => pool.size === 1);
  await pool[Symbol.asyncDispose]();
});

test("a draining pool opens nothing new; a disposed one ends its streams and dials", async (t) => {
  const { pool, open, servers } = rig();
  await open();
  pool.drain();
  await t.throwsAsync(open(), { code: "HBONE_POOL_CLOSED" });
  t.is(servers[0]?.streams, 1);
  const second = rig();
  await second.open();
  const stuck: TunnelDial = (signal) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  const dialling = second.pool.open({ ...key, owner: "late" }, request, stuck, { signal: forever });
  const rejected = t.throwsAsync(dialling, { code: "HBONE_POOL_CLOSED" });
  await second.pool[Symbol.asyncDispose]();
  await rejected;
  await until(() => second.servers[0]?.streams === 0);
  servers[0]?.destroy();
});

test("the metrics count tunnels, streams and failures", async (t) => {
  const registry = createRegistry();
  const { pool, open } = rig({ metrics: createHboneMetrics(registry) });
  await open();
  await open();
  await t.throwsAsync(pool.open({ ...key, owner: "x" }, request, async () => Promise.reject(new Error("no")), { signal: forever }));
  const text = await registry.metrics();
  t.regex(text, /^fairway_hbone_tunnels 1$/m);
  t.regex(text, /^fairway_hbone_streams_total 2$/m);
  t.regex(text, /^fairway_hbone_tunnel_dial_failures_total 1$/m);
  await pool[Symbol.asyncDispose]();
  t.regex(await registry.metrics(), /^fairway_hbone_tunnels 0$/m);
});
