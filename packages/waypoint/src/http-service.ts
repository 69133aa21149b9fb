/** HTTP inside a tunnel stream: its requests become exchanges, governed by what is in force when each of them comes. */
import type { Duplex } from "node:stream";
import { type Clock, type Logger, messageOf } from "@fairway/runtime";
import type { Downstream, Stage } from "./exchange.ts";
import { waypointError } from "./failure.ts";
import type { HttpLimits, HttpVersion, IncomingRequest, ServeHttp, ServerConnection } from "./http-connection.ts";
import { RequestExchange } from "./request-exchange.ts";
import { rescued } from "./rescue.ts";
import { runStages } from "./stages.ts";

export interface HttpServiceParts {
  readonly serve: Readonly<Record<HttpVersion, ServeHttp>>;
  readonly limits: HttpLimits;
  readonly halfClosedMs: number;
  readonly stages: readonly Stage[];
  readonly clock: Clock;
  readonly log: Logger;
  readonly onRefused: (downstream: Downstream, version: HttpVersion, refusal: { readonly status: number; readonly detail: string }) => void;
}

export class HttpService {
  readonly #parts: HttpServiceParts;
  readonly #connections = new Set<ServerConnection>();
  #draining = false;

  constructor(parts: HttpServiceParts) {
    this.#parts = parts;
  }

  /** Requests under way. */
  get active(): number {
    let active = 0;
    for (const connection of this.#connections) active += connection.active;
    return active;
  }

  /** Connections that are not over; one that leaves is, when its client has its last answer. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Serves one connection of a client; resolves when it is over. Never rejects. */
  async serve(transport: Duplex, version: HttpVersion, downstream: Downstream): Promise<void> {
    const { serve, limits, onRefused } = this.#parts;
    const connection = serve[version](transport, {
      limits,
      onRequest: (request) => this.#onRequest(request, downstream),
      onRefused: (refusal) => onRefused(downstream, version, refusal),
    });
    this.#connections.add(connection);
    if (this.#draining) connection.drain();
    using _halfClosed = version === "http1" ? this.#whileHalfClosed(transport, connection) : undefined;
    await connection.closed;
    this.#connections.delete(connection);
  }

  /** Both FINs are carried through the mesh, and so a client that is gone looks like one that only listens; it is believed for a while. */
  #whileHalfClosed(transport: Duplex, connection: ServerConnection): Disposable {
    const { clock, halfClosedMs } = this.#parts;
    let timer: Disposable | undefined;
    const onEnd = (): void => {
      timer = clock.schedule(halfClosedMs, () =>
        connection.destroy(waypointError("WAYPOINT_HALF_CLOSED", `the client ended its side and was still not answered after ${halfClosedMs} ms`)),
      );
    };
    transport.once("end", onEnd);
    return {
      [Symbol.dispose]: () => {
        transport.off("end", onEnd);
        timer?.[Symbol.dispose]();
      },
    };
  }

  drain(): void {
    this.#draining = true;
    for (const connection of this.#connections) connection.drain();
  }

  destroy(reason: Error): void {
    this.#draining = true;
    for (const connection of [...this.#connections]) connection.destroy(reason);
  }

  #onRequest(request: IncomingRequest, downstream: Downstream): void {
    const exchange = new RequestExchange(request, downstream, this.#parts.clock.monotonic());
    // Never rejects: what no stage rescued is answered here.
    void this.#answer(exchange);
  }

  async #answer(exchange: RequestExchange): Promise<void> {
    const { request } = exchange;
    try {
      request.respond(await runStages(this.#parts.stages, exchange));
    } catch (thrown) {
      this.#parts.log.error("a request failed outside its stages", { error: messageOf(thrown) });
      try {
        request.respond(rescued(exchange, thrown));
      } catch (again) {
        this.#parts.log.error("a request could not be answered", { error: messageOf(again) });
      }
    }
  }
}
