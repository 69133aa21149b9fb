/**
 * The seam between the mesh and HTTP/2: what a tunnel can do, whichever engine frames it.
 * `node:http2` is the reference engine; a leaner one passes the same compliance suite.
 */
import type { Duplex } from "node:stream";
import type { SpiffeId } from "@fairway/model";
import type { MeshError } from "@fairway/runtime";

/** Headers of a CONNECT besides `:method` (ztunnel contract 1.4). Unset ones are not sent. */
export interface ConnectRequest {
  /** `ip:port`, `[v6]:port` or `hostname:port`. */
  readonly authority: string;
  readonly baggage?: string | undefined;
  readonly forwarded?: string | undefined;
  readonly traceparent?: string | undefined;
  readonly forwardedNetwork?: string | undefined;
}

/** Settings of ztunnel contract 1.7; bytes and counts. */
export interface TunnelSettings {
  readonly streamWindow: number;
  readonly connectionWindow: number;
  readonly frameSize: number;
  /** Client: streams opened at most on one tunnel. Server: advertised limit. */
  readonly maxStreams: number;
  readonly maxHeaderBytes: number;
  readonly pingIntervalMs: number;
  readonly pingTimeoutMs: number;
}

/** How a copy ended, from the view of the socket's owner. */
export interface PipeOutcome {
  /** Bytes read from the socket and sent into the stream. */
  readonly sent: number;
  /** Bytes received from the stream and written to the socket. */
  readonly received: number;
  /** Undefined when both directions ended cleanly (resets that mean "clean end" by contract 1.8 included). */
  readonly error: Error | undefined;
}

/** One CONNECT, after its 200. */
export interface TunnelStream {
  /**
   * Copies between `socket` and this stream until both directions ended; each FIN is carried over, none is invented.
   * Never rejects: failures are in the outcome. Aborting `signal` resets the stream (CANCEL) and destroys the socket at once.
   * `onBytes` reports the bytes moved since its last call, per direction, for live counters.
   */
  pipe(socket: Duplex, options: { signal: AbortSignal; onBytes?: (sent: number, received: number) => void }): Promise<PipeOutcome>;
  /** The stream as a plain duplex, for what must speak another protocol inside it (double HBONE). Not together with `pipe`. */
  duplex(): Duplex;
  /** RST_STREAM CANCEL. */
  reset(): void;
}

/** The client's side of one tunnel. */
export interface ClientTunnel {
  /** True while new streams may be opened (not closed, no GOAWAY, below the stream limit). */
  readonly usable: boolean;
  /** Streams open now. */
  readonly streams: number;
  /** Settles when the tunnel is gone, with the error that ended it, if one did. Never rejects. */
  readonly closed: Promise<Error | undefined>;
  /**
   * Sends a CONNECT and waits for the answer. Throws MeshError HBONE_REFUSED (details.status) for anything but 200,
   * HBONE_TUNNEL_LOST when the tunnel died first, or the signal's reason.
   */
  open(request: ConnectRequest, options: { signal: AbortSignal }): Promise<{ stream: TunnelStream; baggage: string | undefined }>;
  /** Lets open streams finish, opens no new ones, then closes. */
  drain(): void;
  /** Ends every stream now. */
  destroy(error?: Error): void;
}

/** A CONNECT that the server has not answered yet: answer it exactly once. */
export interface ConnectExchange {
  readonly request: ConnectRequest;
  /** Answers 200 (with response baggage) and hands over the bytes. */
  accept(options: { baggage?: string | undefined }): TunnelStream;
  /** Answers headers only with END_STREAM. */
  reject(status: 400 | 401 | 503): void;
  /** Aborts when the client gave up before the answer. */
  readonly cancelled: AbortSignal;
}

export interface ServerTunnel {
  readonly closed: Promise<Error | undefined>;
  readonly streams: number;
  /** GOAWAY; open streams continue. */
  drain(): void;
  destroy(error?: Error): void;
}

export interface TunnelEngine {
  readonly name: string;
  /** Starts the client side over a connected duplex (normally a TLS socket, ALPN h2 done). Resolves once SETTINGS arrived. */
  connect(transport: Duplex, settings: TunnelSettings, options: { signal: AbortSignal }): Promise<ClientTunnel>;
  /**
   * Starts the server side. `onConnect` gets each well-formed CONNECT; what is none is answered 400 here, and `onRefused` hears why. Neither
   * may throw.
   */
  serve(transport: Duplex, settings: TunnelSettings, onConnect: (exchange: ConnectExchange) => void, onRefused?: (why: MeshError) => void): ServerTunnel;
}

/** What a pooled tunnel is good for: same pod, same peer, same proof. */
export interface TunnelKey {
  /** The pod whose tunnel this is; tunnels are never shared between pods. */
  readonly owner: string;
  readonly source: SpiffeId;
  readonly expected: readonly SpiffeId[];
  /** Uid of the workload dialled, so that a reused address never reaches an old tunnel; undefined when unknown. */
  readonly workload: string | undefined;
  /** `ip:port`. */
  readonly address: string;
}
