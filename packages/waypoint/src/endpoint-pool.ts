/** Connections to one endpoint, kept for the next request: HTTP/1 the one used last first, HTTP/2 the one with the fewest streams. */
import type { Duplex } from "node:stream";
import type { Clock } from "@fairway/runtime";
import type { EndpointConnections, EndpointConnectionsOptions, OpenConnections } from "./endpoint-connections.ts";
import { waypointError } from "./failure.ts";
import type { ClientConnection, ConnectHttp, HttpVersion } from "./http-connection.ts";

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
  /** Handed out to callers that have not sent yet: until then the connection itself does not know of their requests. */
  lent: number;
}

class EndpointPool implements EndpointConnections {
  readonly #parts: EndpointPoolParts;
  readonly #options: EndpointConnectionsOptions;
  readonly #kept: Kept[] = [];
  /** HTTP/2: the connection being made, which all who wait will share. */
  #opening: Promise<Kept> | undefined;
  #sweep: Disposable | undefined;
  readonly #gone = new AbortController();

  constructor(parts: EndpointPoolParts, options: EndpointConnectionsOptions) {
    this.#parts = parts;
    this.#options = options;
  }

  async acquire({ signal }: { signal: AbortSignal }): Promise<ClientConnection> {
    for (;;) {
      const kept = this.#take();
      if (kept !== undefined) return kept;
      if (this.#options.version === "http1") {
        const opened = await this.#open(signal);
        opened.lent--;
        return lend(opened);
      }
      this.#opening ??= this.#open(this.#gone.signal).finally(() => {
        this.#opening = undefined;
      });
      // More may wait for it than it takes; the rest open another.
      await unlessAborted(this.#opening, signal);
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

  #take(): ClientConnection | undefined {
    let best: Kept | undefined;
    for (let at = this.#kept.length - 1; at >= 0; at--) {
      const kept = this.#kept[at];
      if (kept?.connection.usable !== true || (kept.lent > 0 && this.#options.version === "http1")) continue;
      if (best === undefined || load(kept) < load(best)) best = kept;
      if (load(best) === 0) break;
    }
    if (best === undefined) return undefined;
    best.usedAt = this.#parts.clock.monotonic();
    return lend(best);
  }

  async #open(signal: AbortSignal): Promise<Kept> {
    const { version, limits, dial } = this.#options;
    const transport: Duplex = await dial(signal);
    const connection = this.#parts.connect[version](transport, { limits, onUnusable: () => this.#forget(connection) });
    if (this.#gone.signal.aborted) {
      connection.drain();
      throw this.#gone.signal.reason;
    }
    const kept: Kept = { connection, usedAt: this.#parts.clock.monotonic(), lent: this.#options.version === "http1" ? 1 : 0 };
    this.#kept.push(kept);
    this.#sweepLater();
    return kept;
  }

  #forget(connection: ClientConnection): void {
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
      for (const { connection, usedAt, lent } of [...this.#kept]) {
        if (connection.active > 0 || lent > 0 || usedAt > oldest) continue;
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

function load({ connection, lent }: Kept): number {
  return connection.active + lent;
}

/** Nobody else gets it before the caller sent: `acquire` answers in a later turn than it chose. */
function lend(kept: Kept): ClientConnection {
  const { connection } = kept;
  kept.lent++;
  let held = true;
  return {
    version: connection.version,
    get usable() {
      return connection.usable;
    },
    get active() {
      return connection.active;
    },
    closed: connection.closed,
    send: (request, options) => {
      if (held) kept.lent--;
      held = false;
      return connection.send(request, options);
    },
    drain: () => connection.drain(),
    destroy: (reason) => connection.destroy(reason),
  };
}

function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) return Promise.reject(signal.reason);
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
