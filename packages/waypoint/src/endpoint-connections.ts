/** The seam to the pool of connections to one endpoint: how the upstream half finds one that takes a request now. */
import type { Duplex } from "node:stream";
import type { Answer, HttpLimits, HttpVersion, OutgoingRequest } from "./http-connection.ts";

export interface EndpointConnectionsOptions {
  readonly version: HttpVersion;
  readonly limits: HttpLimits;
  /** Makes the bytes flow to the application. Throws when there is no place for another connection, or none can be made. */
  readonly dial: (signal: AbortSignal) => Promise<Duplex>;
}

export interface EndpointConnections {
  /**
   * Sends the request over a connection that takes it now, made when there is none; as `ClientConnection.send`, besides what the dial threw. The
   * connection is chosen and used in one turn, so that no two requests take the same one. `onConnected`: it was found.
   */
  send(request: OutgoingRequest, options: { readonly signal: AbortSignal; readonly onConnected?: () => void }): Promise<Answer>;
  /** No new connections; those there are close after their last request. */
  drain(): void;
  destroy(reason: Error): void;
}

export type OpenConnections = (options: EndpointConnectionsOptions) => EndpointConnections;
