/** What the outside learns of requests and connections: the access log and the metrics, told in one place. */
import type { RequestVerdict, SocketAddress } from "@fairway/model";
import type { Downstream, Exchange } from "./exchange.ts";
import type { Answer, Delivery, HttpVersion } from "./http-connection.ts";
import type { Limited } from "./limits.ts";

export interface RequestOutcome {
  /** Undefined: the client was gone before there was one. */
  readonly answer: Answer | undefined;
  readonly delivery: Delivery;
  readonly grpcStatus: string | undefined;
}

export interface RequestTelemetry {
  over(exchange: Exchange, outcome: RequestOutcome): void;
  retried(exchange: Exchange): void;
  mirrorDropped(): void;
}

/** A connection of bytes, from its CONNECT to its end. */
export interface ConnectionReport {
  cluster: string | undefined;
  upstream: SocketAddress | undefined;
  workload: string | undefined;
  /** Bytes in both directions so far. */
  readonly moved: number;
  bytes(clientToServer: number, serverToClient: number): void;
  /** The end, with the error that brought it, if one did. Later calls say nothing. */
  close(error: Error | undefined): void;
}

export interface ConnectionTelemetry {
  opened(downstream: Downstream): ConnectionReport;
  /** A tunnel, or a CONNECT, that came to nothing. */
  refused(refusal: { readonly source: SocketAddress | undefined; readonly authority: string | undefined; readonly error: unknown }): void;
}

/** All that one thread reports. */
export interface ProxyTelemetry extends RequestTelemetry, ConnectionTelemetry {
  /** A request that was refused before it was one. */
  malformed(downstream: Downstream, version: HttpVersion, refusal: { readonly status: number; readonly detail: string }): void;
  /** What policies in dry run and of action AUDIT would have said. */
  observed(exchange: Exchange, observed: RequestVerdict["observed"]): void;
  overflowed(cluster: string, what: Limited): void;
  ejected(cluster: string): void;
  overloaded(bound: string): void;
}
