/** One request on its way through the waypoint, and the one shape of every stage. */
import type { Claims, HttpRoute, RequestHead, ServedPort, ServedTarget, SocketAddress, SpiffeId, WeightedBackend } from "@fairway/model";
import type { Body } from "./body.ts";
import type { Answer, Delivery, HttpVersion, IncomingRequest } from "./http-connection.ts";

/** Who is at the other end, and for whom: known once per tunnel stream, before the first byte of HTTP. */
export interface Downstream {
  /** As the peer's certificate proves. */
  readonly identity: SpiffeId | undefined;
  /** The client's pod. */
  readonly source: SocketAddress;
  /** What the client asked for: the authority of the CONNECT. */
  readonly destination: SocketAddress;
  readonly target: ServedTarget;
  readonly port: ServedPort;
  /** What the client's ztunnel says of the client, for telemetry only. */
  readonly baggage: string | undefined;
}

/** Mutable on purpose, by the stages alone: each writes what it found, and the access log reads it at the end. */
export interface Exchange {
  /** With the target and port as they are in force now. */
  downstream: Downstream;
  readonly version: HttpVersion;
  readonly request: IncomingRequest;
  /** Normalised, and changed by the stages on the way upstream. */
  head: RequestHead;
  body: Body;
  /** The client in front of trusted proxies; the source when there are none. */
  remote: SocketAddress;
  claims: Claims | undefined;
  route: HttpRoute | undefined;
  /** The one of the route's backends that this request goes to, in every attempt. */
  backend: WeightedBackend | undefined;
  /** The attempt under way; set by the retry stage. */
  attempt: Attempt;
  /** Milliseconds of the clock at the request's first byte. */
  readonly startedAt: number;
  /** Aborts when the client is gone or the exchange ran out of time; the reason says which. */
  readonly signal: AbortSignal;
  readonly record: ExchangeRecord;
  /** Ends the exchange: whatever waits for it stops with `reason`. */
  abort(reason: Error): void;
  /** Calls `listener` once, when the client's side is over; at once when it is already. */
  onDone(listener: (delivery: Delivery) => void): void;
}

/** One try at an upstream. */
export interface Attempt {
  /** From 1. */
  readonly number: number;
  /** Aborts with the exchange, or when this try took too long. */
  readonly signal: AbortSignal;
  /** Endpoints tried before, which this one avoids. */
  readonly tried: Set<string>;
}

/** What the access log and the metrics say of an exchange. */
export interface ExchangeRecord {
  cluster: string | undefined;
  upstream: SocketAddress | undefined;
  /** Uid of the workload that answered, for labels. */
  workload: string | undefined;
  /** Envoy's response flags: UF, UH, UO, UT, UR, URX, NR, DC, DPE, RBAC denials carry none. */
  readonly flags: Set<string>;
  /** `rbac_access_denied_matched_policy[ns[…]-policy[…]-rule[…]]`, `via_upstream`, … */
  detail: string | undefined;
  /** Why the upstream could not be reached. */
  failure: string | undefined;
  attempts: number;
  /** Of the final answer, when it had arrived from upstream: milliseconds from the request's first byte. */
  upstreamMs: number | undefined;
}

/** One step: decides, changes, or answers; `next` is the rest of the way. Any throw lands in `rescue.ts`. */
export type Stage = (exchange: Exchange, next: () => Promise<Answer>) => Promise<Answer>;
