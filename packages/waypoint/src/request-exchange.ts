/** An exchange from the request's first byte to the moment when the client's side is over. */
import type { Claims, HttpRoute, RequestHead, SocketAddress, WeightedBackend } from "@fairway/model";
import type { Body } from "./body.ts";
import type { Attempt, Downstream, Exchange, ExchangeRecord } from "./exchange.ts";
import { waypointError } from "./failure.ts";
import type { Delivery, HttpVersion, IncomingRequest } from "./http-connection.ts";

export class RequestExchange implements Exchange {
  readonly request: IncomingRequest;
  readonly startedAt: number;
  readonly record: ExchangeRecord;
  readonly signal: AbortSignal;
  downstream: Downstream;
  head: RequestHead;
  body: Body;
  remote: SocketAddress;
  claims: Claims | undefined;
  route: HttpRoute | undefined;
  backend: WeightedBackend | undefined;
  attempt: Attempt;
  readonly #controller = new AbortController();
  readonly #listeners: ((delivery: Delivery) => void)[] = [];
  #delivery: Delivery | undefined;

  constructor(request: IncomingRequest, downstream: Downstream, startedAt: number) {
    this.request = request;
    this.downstream = downstream;
    this.startedAt = startedAt;
    this.signal = this.#controller.signal;
    this.head = request.head;
    this.body = request.body;
    this.remote = downstream.source;
    this.attempt = { number: 1, signal: this.signal, tried: new Set() };
    this.record = {
      cluster: undefined,
      upstream: undefined,
      workload: undefined,
      flags: new Set(),
      detail: undefined,
      failure: undefined,
      attempts: 0,
      upstreamMs: undefined,
    };
    request.onDone = (delivery) => this.#over(delivery);
  }

  get version(): HttpVersion {
    return this.request.version;
  }

  abort(reason: Error): void {
    this.#controller.abort(reason);
  }

  onDone(listener: (delivery: Delivery) => void): void {
    if (this.#delivery === undefined) this.#listeners.push(listener);
    else listener(this.#delivery);
  }

  #over(delivery: Delivery): void {
    this.#delivery = delivery;
    // Innermost first: what the upstream half has to say is in the record before the log is written.
    for (const listener of this.#listeners.splice(0).reverse()) listener(delivery);
    if (delivery.error !== undefined)
      this.abort(waypointError("WAYPOINT_CLIENT_GONE", "the client's side ended before the answer was delivered", { cause: delivery.error }));
  }
}
