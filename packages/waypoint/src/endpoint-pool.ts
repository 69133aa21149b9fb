/**
 * Connections to one endpoint, kept for the next request: HTTP/1 the one used last first, HTTP/2 the one with the fewest streams. Where there is
 * no place for another, a request waits for one of those there are.
 */
import type { Duplex } from "node:stream";
import { type Clock, errorCode } from "@fairway/runtime";
import type { EndpointConnections, EndpointConnectionsOptions, OpenConnections } from "./endpoint-connections.ts";
import { waypointError } from "./failure.ts";
import type { Answer, ClientConnection, ConnectHttp, HttpVersion, OutgoingRequest } from "./http-connection.ts";

export interface EndpointPoolParts {
  readonly clock: Clock;
  readonly connect: Readonly<Record<HttpVersion, ConnectHttp>>;
}

export function endpointPools(parts: EndpointPoolParts): OpenConnections {
  return (options) => new EndpointPool(parts, options);
}

interface Kept {
  readonly connection: ClientConnection;
  /** Of the monotonic clock. */
  usedAt: number;
}

class EndpointPool implements EndpointConnections {
  readonly #parts: EndpointPoolParts;
  readonly #options: EndpointConnectionsOptions;
  readonly #kept: Kept[] = [];
  /** HTTP/2: the connection being made, which all who wait will share. */
  #opening: Promise<ClientConnection> | undefined;
  #sweep: Disposable | undefined;
  /** Connections that take no request any more; one may say so before it is kept. */
  readonly #spent = new WeakSet<ClientConnection>();
  readonly #gone = new AbortController();
  /** Requests that found no place for a connection; bounded by the cluster's pending limit. First come, first served. */
  readonly #waiting: (() => void)[] = [];
  /** Being made, or there until their bytes end. */
  #places = 0;

  constructor(parts: EndpointPoolParts, options: EndpointConnectionsOptions) {
    this.#parts = parts;
    this.#options = options;
  }

  async send(request: OutgoingRequest, { signal, onConnected }: { readonly signal: AbortSignal; readonly onConnected?: () => void }): Promise<Answer> {
    for (;;) {
      const kept = this.#take();
      const connection = kept?.connection ?? (await this.#openedOrFree(signal));
      // Everything from here to the send is one turn: no other request can come between.
      if (connection?.usable !== true) continue;
      onConnected?.();
      const answered = connection.send(request, { signal });
      this.#keep(connection, kept);
      return answered;
    }
  }

  drain(): void {
    this.#gone.abort(waypointError("WAYPOINT_SUPERSEDED", "the endpoint is no longer used"));
    for (const { connection } of this.#kept.splice(0)) connection.drain();
    this.#stopSweeping();
  }

  destroy(reason: Error): void {
    this.#gone.abort(reason);
    for (const { connection } of this.#kept.splice(0)) connection.destroy(reason);
    this.#stopSweeping();
  }

  #take(): Kept | undefined {
    let best: Kept | undefined;
    for (let at = this.#kept.length - 1; at >= 0; at--) {
      const kept = this.#kept[at];
      if (kept?.connection.usable !== true) continue;
      if (best === undefined || kept.connection.active < best.connection.active) best = kept;
      if (best.connection.active === 0) break;
    }
    return best;
  }

  /** A new connection; undefined when there is no place for one and one of those there are became free, or ended. */
  async #openedOrFree(signal: AbortSignal): Promise<ClientConnection | undefined> {
    try {
      return await this.#opened(signal);
    } catch (thrown) {
      // Streams of HTTP/2 do not come free one by one here: those who share a connection are told at once.
      const mayWait = this.#options.version === "http1" && this.#places > 0 && !this.#gone.signal.aborted;
      if (errorCode(thrown) !== "WAYPOINT_OVERFLOW" || !mayWait) throw thrown;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    try {
      await unlessAborted(promise, AbortSignal.any([signal, this.#gone.signal]));
    } finally {
      const at = this.#waiting.indexOf(resolve);
      if (at >= 0) this.#waiting.splice(at, 1);
      // Woken and gone at once: the place is the next one's.
      else if (signal.aborted) this.#wake();
    }
    return undefined;
  }

  #wake(): void {
    this.#waiting.shift()?.();
  }

  /** HTTP/1: a connection of the caller's own, kept only when it is in use. HTTP/2: the one that is being made, for all who wait. */
  #opened(signal: AbortSignal): Promise<ClientConnection> {
    signal.throwIfAborted();
    this.#gone.signal.throwIfAborted();
    // Whoever waits for an endpoint that leaves may ask another one at once.
    if (this.#options.version === "http1") return unlessAborted(this.#open(signal), this.#gone.signal);
    this.#opening ??= this.#open(this.#gone.signal).finally(() => {
      this.#opening = undefined;
    });
    return unlessAborted(this.#opening, signal);
  }

  async #open(signal: AbortSignal): Promise<ClientConnection> {
    const { version, limits } = this.#options;
    const transport = await this.#dial(signal);
    const connection = this.#parts.connect[version](transport, { limits, onUnusable: () => this.#forget(connection), onAvailable: () => this.#wake() });
    if (this.#gone.signal.aborted) {
      connection.drain();
      throw this.#gone.signal.reason;
    }
    return connection;
  }

  async #dial(signal: AbortSignal): Promise<Duplex> {
    this.#places++;
    const leave = (): void => {
      this.#places--;
      this.#wake();
    };
    try {
      const transport = await this.#options.dial(signal);
      transport.once("close", leave);
      return transport;
    } catch (thrown) {
      this.#places--;
      // Whoever waits would find no place either.
      if (errorCode(thrown) !== "WAYPOINT_OVERFLOW") this.#wake();
      throw thrown;
    }
  }

  #keep(connection: ClientConnection, taken: Kept | undefined): void {
    // One that was just made may have been kept by another who waited for it.
    const known = taken ?? this.#kept.find((kept) => kept.connection === connection);
    if (known !== undefined) known.usedAt = this.#parts.clock.monotonic();
    else if (!this.#spent.has(connection)) this.#kept.push({ connection, usedAt: this.#parts.clock.monotonic() });
    this.#sweepLater();
  }

  #forget(connection: ClientConnection): void {
    this.#spent.add(connection);
    const at = this.#kept.findIndex((kept) => kept.connection === connection);
    if (at >= 0) this.#kept.splice(at, 1);
    if (this.#kept.length === 0) this.#stopSweeping();
  }

  /** One timer for all of them. */
  #sweepLater(): void {
    const { clock } = this.#parts;
    const { idleTimeoutMs } = this.#options.limits;
    this.#sweep ??= clock.schedule(idleTimeoutMs, () => {
      this.#sweep = undefined;
      const oldest = clock.monotonic() - idleTimeoutMs;
      for (const { connection, usedAt } of [...this.#kept]) {
        if (connection.active > 0 || usedAt > oldest) continue;
        this.#forget(connection);
        connection.drain();
      }
      if (this.#kept.length > 0) this.#sweepLater();
    });
  }

  #stopSweeping(): void {
    this.#sweep?.[Symbol.dispose]();
    this.#sweep = undefined;
  }
}

function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) return Promise.reject(signal.reason);
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
