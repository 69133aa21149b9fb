import { duplexPair } from "node:stream";
import { HeaderFields } from "@fairway/model";
import { ManualClock } from "@fairway/runtime";
import test from "ava";
import { emptyBody } from "./body.ts";
import type { EndpointConnections } from "./endpoint-connections.ts";
import { endpointPools } from "./endpoint-pool.ts";
import { type ClientConnection, type ConnectHttp, defaultHttpLimits, type HttpVersion, type OutgoingRequest } from "./http-connection.ts";

const { signal } = new AbortController();
const request: OutgoingRequest = {
  head: { method: "GET", scheme: "http", authority: "api", path: "/", headers: new HeaderFields() },
  body: emptyBody,
  upgrade: undefined,
  onInform: () => undefined,
};

/** Connections that count what is sent on them; each answers when told to. */
function bench(version: HttpVersion, streams: number): { pool: EndpointConnections; opened: Scripted[]; clock: ManualClock } {
  const opened: Scripted[] = [];
  const clock = new ManualClock();
  const connect: ConnectHttp = (_, { onUnusable }) => {
    const connection = new Scripted(version, streams, onUnusable);
    opened.push(connection);
    return connection;
  };
  const limits = { ...defaultHttpLimits, idleTimeoutMs: 1_000 };
  const pool = endpointPools({ clock, connect: { http1: connect, http2: connect } })({ version, limits, dial: async () => duplexPair()[0] });
  return { pool, opened, clock };
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

  constructor(version: HttpVersion, streams: number, onUnusable: () => void) {
    this.version = version;
    this.#streams = streams;
    this.#onUnusable = onUnusable;
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
