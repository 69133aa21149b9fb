/** The seam to the kernel: sockets that live in another network namespace, and what Node cannot ask of them. */
import type { Socket as UdpSocket } from "node:dgram";
import type { Server, Socket } from "node:net";
import type { NetworkNamespace } from "./namespace.ts";
import type { Keepalive } from "./socket-options.ts";
import type { UdpOptions } from "./udp.ts";

export interface ListenOptions {
  readonly host: string;
  readonly port: number;
  /** SO_MARK, 0 for none. */
  readonly mark: number;
  readonly reusePort: boolean;
  /** Try IP_TRANSPARENT; whether it was granted is in the result. */
  readonly transparent: boolean;
  readonly backlog: number;
  /** TCP keepalive of accepted sockets; undefined leaves it off. */
  readonly keepalive?: Keepalive | undefined;
  /** Accept sockets paused and half-open: the caller decides when bytes flow and how each side ends. */
  readonly onConnection: (socket: Socket) => void;
}

export interface Listener extends AsyncDisposable {
  readonly server: Server;
  readonly port: number;
  /** IP_TRANSPARENT was granted, so dialled sockets may keep a foreign source address. */
  readonly transparent: boolean;
  /** Stops accepting; does not touch accepted sockets. */
  close(): void;
}

export interface DialOptions {
  readonly host: string;
  readonly port: number;
  readonly mark: number;
  /** Bind this foreign address first (IP_TRANSPARENT + IP_FREEBIND); on failure the dial goes on without, and says so. */
  readonly source?: string | undefined;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** TCP keepalive; undefined leaves it off. */
  readonly keepalive?: Keepalive | undefined;
}

/**
 * TCP and UDP inside a pod's network namespace. Two implementations: this kernel, and the process's own namespace for tests.
 * Sockets that come from here never end the process by an error that nobody listens for yet. Disposing closes the listeners
 * that are still open; sockets and the namespace belong to the caller.
 */
export interface PodNetwork extends AsyncDisposable {
  readonly namespace: NetworkNamespace | undefined;
  /** Throws MeshError LINUX_LISTEN_FAILED. */
  listen(options: ListenOptions): Promise<Listener>;
  /**
   * A connected socket: half-open allowed, no delay set, paused.
   * Throws MeshError LINUX_DIAL_TIMEOUT, LINUX_DIAL_REFUSED, LINUX_DIAL_FAILED, or the signal's reason.
   */
  dial(options: DialOptions): Promise<{ socket: Socket; sourceKept: boolean }>;
  /** A bound datagram socket, receiving; `::` takes IPv4 too. The caller closes it. Throws MeshError LINUX_LISTEN_FAILED. */
  datagrams(options: UdpOptions): Promise<UdpSocket>;
  /**
   * Where the client wanted to go before the kernel redirected it; the local address when nothing was redirected.
   * Throws LINUX_SOCKET_CLOSED when the socket is gone.
   */
  originalDestination(socket: Socket): { ip: string; port: number };
}
