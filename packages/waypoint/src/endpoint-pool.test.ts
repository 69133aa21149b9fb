import { type Duplex, duplexPair } from "node:stream";
import { HeaderFields } from "@fairway/model";
import { ManualClock } from "@fairway/runtime";
import test from "ava";
import { emptyBody } from "./body.ts";
import type { EndpointConnections } from "./endpoint-connections.ts";
import { endpointPools } from "./endpoint-pool.ts";
import { waypointError } from "./failure.ts";
import { type ClientConnection, type ConnectHttp, defaultHttpLimits, type HttpVersion, type OutgoingRequest } from "./http-connection.ts";

const { signal } = new AbortController();
const request: OutgoingRequest = {
  head: { method: "GET", scheme: "http", authority: "api", path: "/", headers: new HeaderFields() },
  body: emptyBody,
  upgrade: undefined,
  onInform: () => undefined,
};

/** Connections that count what is sent on them; each answers when told to. */
function bench(
  version: HttpVersion,
  streams: number,
): { pool: EndpointConnections; opened: Scripted[]; clock: ManualClock; dialled: { count: number; places: number } } {
  const opened: Scripted[] = [];
  const clock = new ManualClock();
  const connect: ConnectHttp = (_, { onUnusable, onAvailable }) => {
    const connection = new Scripted(version, streams, onUnusable, onAvailable);
    opened.push(connection);
    return connection;
  };
  const limits = { ...defaultHttpLimits, idleTimeoutMs: 1_000 };
  const dialled = { count: 0, places: Number.POSITIVE_INFINITY };
  const dial = async (): Promise<Duplex> => {
    if (dialled.count++ >= dialled.places) throw waypointError("WAYPOINT_OVERFLOW", "no place");
    return duplexPair()[0];
  };
  const pool = endpointPools({ clock, connect: { http1: connect, http2: connect } })({ version, limits, dial });
  return { pool, opened, clock, dialled };
}

/** Resolves when a connection was found for one more request; its answer never comes. */
function sent(pool: EndpointConnections): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  pool.send(request, { signal, onConnected: resolve }).catch(reject);
  return promise;
}

class Scripted implements ClientConnection {
  readonly version: HttpVersion;
  readonly closed: Promise<void> = new Promise(() => undefined);
  active = 0;
  most = 0;
  drained = false;
  readonly #streams: number;
  readonly #onUnusable: () => void;
  readonly #onAvailable: (() => void) | undefined;

  constructor(version: HttpVersion, streams: number, onUnusable: () => void, onAvailable: (() => void) | undefined) {
    this.version = version;
    this.#streams = streams;
    this.#onUnusable = onUnusable;
    this.#onAvailable = onAvailable;
  }

  finish(): void {
    this.active--;
    this.#onAvailable?.();
  }

  get usable(): boolean {
    return this.active < this.#streams && !this.drained;
  }

  send(): Promise<never> {
    this.active++;
    this.most = Math.max(this.most, this.active);
    return new Promise(() => undefined);
  }

  drain(): void {
    this.drained = true;
    this.#onUnusable();
  }

  destroy(): void {
    this.drain();
  }
}

test("requests at the same time never share a connection of HTTP/1", async (t) => {
  const { pool, opened } = bench("http1", 1);
  await Promise.all(Array.from({ length: 10 }, () => sent(pool)));
  t.is(opened.length, 10);
  for (const connection of opened) connection.active = 0;
  await Promise.all(Array.from({ length: 10 }, () => sent(pool)));
  t.is(opened.length, 10);
  t.deepEqual(
    opened.map(({ most }) => most),
    Array.from({ length: 10 }, () => 1),
  );
});

test("requests at the same time share one connection of HTTP/2 as far as it goes", async (t) => {
  const { pool, opened } = bench("http2", 4);
  await Promise.all(Array.from({ length: 4 }, () => sent(pool)));
  t.is(opened.length, 1);
  await sent(pool);
  t.is(opened.length, 2);
});

test("a connection that was not used for long is let go, and drain lets go of all", async (t) => {
  const { pool, opened, clock } = bench("http1", 1);
  await sent(pool);
  const [first] = opened;
  if (first !== undefined) first.active = 0;
  clock.advance(2_500);
  t.true(first?.drained);
  await sent(pool);
  t.is(opened.length, 2);
  pool.drain();
  t.true(opened[1]?.drained);
  await t.throwsAsync(pool.send(request, { signal }), { code: "WAYPOINT_SUPERSEDED" });
});

test("requests without a place wait in their order, ask nobody meanwhile, and one that leaves costs nobody his turn", async (t) => {
  const { pool, opened, dialled } = bench("http1", 1);
  dialled.places = 1;
  await sent(pool);
  const order: string[] = [];
  const gone = new AbortController();
  const wait = (name: string, by: AbortSignal = signal): Promise<unknown> => pool.send(request, { signal: by, onConnected: () => order.push(name) });
  const leaving = wait("leaving", gone.signal);
  void wait("second");
  void wait("third");
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  t.is(dialled.count, 4);
  gone.abort(new Error("gone"));
  await t.throwsAsync(leaving, { message: "gone" });
  opened[0]?.finish();
  await new Promise((resolve) => setImmediate(resolve));
  t.deepEqual(order, ["second"]);
  opened[0]?.finish();
  await new Promise((resolve) => setImmediate(resolve));
  t.deepEqual(order, ["second", "third"]);
  t.is(opened.length, 1);
});
