/** The seam to the pool of connections to one endpoint: how the upstream half gets one that takes a request now. */
import type { Duplex } from "node:stream";
import type { ClientConnection, HttpLimits, HttpVersion } from "./http-connection.ts";

export interface EndpointConnectionsOptions {
  readonly version: HttpVersion;
  readonly limits: HttpLimits;
  /** Makes the bytes flow to the application. Throws when there is no place for another connection, or none can be made. */
  readonly dial: (signal: AbortSignal) => Promise<Duplex>;
}

export interface EndpointConnections {
  /** A connection that is the caller's until it called `send`, in the same turn. Throws what the dial threw, or the signal's reason. */
  acquire(options: { signal: AbortSignal }): Promise<ClientConnection>;
  /** No new connections; those there are close after their last request. */
  drain(): void;
  destroy(reason: Error): void;
}

export type OpenConnections = (options: EndpointConnectionsOptions) => EndpointConnections;
