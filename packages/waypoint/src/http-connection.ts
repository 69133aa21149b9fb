/** The seam between the wire and the exchange: what an HTTP connection can do on either side, whichever version it speaks. */
import type { Duplex } from "node:stream";
import type { HeaderFields, RequestHead } from "@fairway/model";
import type { Clock } from "@fairway/runtime";
import type { Body } from "./body.ts";

export type HttpVersion = "http1" | "http2";

/** A final answer. After 101 the body is the raw bytes of the other protocol, in both directions. */
export interface Answer {
  readonly status: number;
  /**
   * Without connection-specific fields and without framing: the codec of each side writes its own. The one exception is `content-length` of an
   * answer to HEAD and of 304, which tells of a body that is not sent.
   */
  readonly headers: HeaderFields;
  readonly body: Body;
}

/** One request as it came from the client. Answered exactly once. */
export interface IncomingRequest {
  readonly version: HttpVersion;
  readonly head: RequestHead;
  readonly body: Body;
  /** The protocol asked for by Upgrade (or by :protocol, RFC 8441), in lower case: "websocket". Undefined: none. */
  readonly upgrade: string | undefined;
  /** Sends 1xx other than 101; nothing to an HTTP/1.0 client. */
  inform(status: number, headers: HeaderFields): void;
  /** Sends the answer and lets its body flow. An answer before the end of the request is sent as a whole, then the rest of the request is cancelled. */
  respond(answer: Answer): void;
  /** Called once, when the exchange is over on the client's side: all was sent, or the client is gone, or the answer broke off. Set it before returning from the handler. */
  onDone: ((outcome: Delivery) => void) | undefined;
}

export interface Delivery {
  /** Of bodies. */
  readonly bytesReceived: number;
  readonly bytesSent: number;
  /** Undefined: the answer was delivered whole. WAYPOINT_CLIENT_GONE: the client went away first; others name what broke. */
  readonly error: Error | undefined;
}

/** A connection of a client. */
export interface ServerConnection {
  /** Requests that are not over yet; an upgraded connection counts as one. */
  readonly active: number;
  /** Never rejects. */
  readonly closed: Promise<void>;
  /** Tells the client that there will be no more (GOAWAY, `connection: close`), answers what is on its way, and closes when the last is over. */
  drain(): void;
  destroy(reason: Error): void;
}

export interface ServerConnectionOptions {
  readonly limits: HttpLimits;
  /** Must not throw. */
  readonly onRequest: (request: IncomingRequest) => void;
  /** A request that is refused before it is one: malformed, too large, too slow. `status` was answered; `detail` names the fault, for the log. */
  readonly onRefused: (refusal: { readonly status: number; readonly detail: string }) => void;
  /** The system's unless told. */
  readonly clock?: Clock;
}

export type ServeHttp = (transport: Duplex, options: ServerConnectionOptions) => ServerConnection;

/** A request as it goes upstream. */
export interface OutgoingRequest {
  readonly head: RequestHead;
  readonly body: Body;
  readonly upgrade: string | undefined;
  /** 1xx other than 100 and 101. */
  readonly onInform: (status: number, headers: HeaderFields) => void;
}

/** A connection to an endpoint. */
export interface ClientConnection {
  readonly version: HttpVersion;
  /** True while it takes another request now. */
  readonly usable: boolean;
  readonly active: number;
  readonly closed: Promise<void>;
  /**
   * Sends the request; resolves with the head of the final answer. Throws what broke the request's own body, WAYPOINT_UNSENDABLE, or MeshError WAYPOINT_UPSTREAM_RESET (`details.sent`: whether any of the
   * request may have been seen; `details.refused`: the peer said it did not look at it), WAYPOINT_UPSTREAM_GARBAGE for an answer that is not HTTP, or the
   * signal's reason. After an abort the connection is not used again for HTTP/1; for HTTP/2 only the stream is reset.
   */
  send(request: OutgoingRequest, options: { signal: AbortSignal }): Promise<Answer>;
  drain(): void;
  destroy(reason: Error): void;
}

export interface ClientConnectionOptions {
  readonly limits: HttpLimits;
  /** Once: it takes no request any more. */
  readonly onUnusable: () => void;
  /** A request is over, and the connection takes another. */
  readonly onAvailable?: () => void;
}

export type ConnectHttp = (transport: Duplex, options: ClientConnectionOptions) => ClientConnection;

/** Bounds of one connection (waypoint contract 6.1); bytes, counts and milliseconds. */
export interface HttpLimits {
  readonly maxHeaderBytes: number;
  readonly maxHeaderCount: number;
  readonly maxRequestTargetBytes: number;
  readonly maxTrailerBytes: number;
  readonly maxConcurrentStreams: number;
  readonly maxRequestsPerConnection: number;
  readonly headersTimeoutMs: number;
  readonly idleTimeoutMs: number;
  /** Bytes held for a slow reader before the source is paused. */
  readonly highWaterMark: number;
}

export const defaultHttpLimits: HttpLimits = {
  maxHeaderBytes: 60 * 1024,
  maxHeaderCount: 100,
  maxRequestTargetBytes: 16 * 1024,
  maxTrailerBytes: 16 * 1024,
  maxConcurrentStreams: 100,
  maxRequestsPerConnection: 2 ** 31,
  headersTimeoutMs: 10_000,
  idleTimeoutMs: 3_600_000,
  highWaterMark: 64 * 1024,
};
