/** TCP inside a network namespace, by sockets that are made in it and then handed to Node's event loop. */
import { closeSync, fstatSync } from "node:fs";
import { Socket, type SocketConstructorOpts } from "node:net";
import { type Clock, MeshError, messageOf, systemClock } from "@fairway/runtime";
import { connect, keepErrorsHarmless } from "./dial.ts";
import { listenerOf, listening, pausedServer } from "./listener.ts";
import { inNamespace, type NetworkNamespace } from "./namespace.ts";
import { descriptorOf } from "./node-handle.ts";
import type { DialOptions, Listener, ListenOptions, PodNetwork } from "./pod-network.ts";
import { addressFamily, canonicalIp, decodeSocketAddress, encodeSocketAddress } from "./socket-address.ts";
import {
  readOriginalDestination,
  setBindWithoutPort,
  setDualStack,
  setFreebind,
  setKeepalive,
  setMark,
  setNoDelay,
  setReuseAddress,
  setReusePort,
  setTransparent,
} from "./socket-options.ts";
import { AF_INET6, bindSocket, closeDescriptor, errnoOf, listenSocket, openSocket, SOCK_STREAM } from "./system-calls.ts";
import { udpSocketIn } from "./udp.ts";

export interface LinuxPodNetworkOptions {
  readonly clock?: Clock;
}

/** The pod network of `namespace`, or of the process's own namespace. Needs CAP_NET_ADMIN, and CAP_SYS_ADMIN for another namespace. */
export function linuxPodNetwork(namespace: NetworkNamespace | undefined, options: LinuxPodNetworkOptions = {}): PodNetwork {
  const { clock = systemClock } = options;
  const listeners = new Set<Listener>();
  const sockaddr = Buffer.alloc(28);
  return {
    namespace,
    async listen(wanted) {
      const { fd, transparent } = openListener(namespace, wanted);
      const identity = fstatSync(fd).ino;
      const server = pausedServer(wanted.onConnection);
      try {
        await listening(server, () => server.listen({ fd, backlog: wanted.backlog }));
      } catch (cause) {
        closeIfStill(fd, identity);
        throw listenError(wanted, cause);
      }
      const listener = listenerOf(server, transparent, (closed) => listeners.delete(closed));
      listeners.add(listener);
      return listener;
    },
    async dial(wanted) {
      wanted.signal.throwIfAborted();
      const { fd, sourceKept } = openDialler(namespace, wanted);
      const socket = adopt(fd, wanted);
      await connect(socket, { ...wanted, host: canonicalIp(wanted.host), clock });
      return { socket, sourceKept };
    },
    datagrams: (wanted) => udpSocketIn(namespace, wanted),
    originalDestination(socket) {
      const fd = descriptorOf(socket);
      if (fd === undefined) throw new MeshError("LINUX_SOCKET_CLOSED", "the client left before its destination could be read");
      try {
        readOriginalDestination(fd, socket.remoteAddress ?? socket.localAddress, sockaddr);
        const found = decodeSocketAddress(sockaddr);
        if (found !== undefined) return found;
      } catch (thrown) {
        // ENOENT: conntrack does not know the connection, so nothing redirected it; ENOPROTOOPT: conntrack is not loaded.
        if (errnoOf(thrown) === undefined) throw thrown;
      }
      return localEndpoint(socket);
    },
    async [Symbol.asyncDispose]() {
      for (const listener of [...listeners]) listener.close();
    },
  };
}

/** Where the socket was accepted: the local address, or LINUX_SOCKET_CLOSED. */
export function localEndpoint(socket: Socket): { ip: string; port: number } {
  const { localAddress, localPort } = socket;
  if (localAddress === undefined || localPort === undefined) {
    throw new MeshError("LINUX_SOCKET_CLOSED", "the client left before its destination could be read");
  }
  // A link-local address carries its interface; the address alone is what the mesh knows.
  return { ip: canonicalIp(localAddress.replace(/%.*$/, "")), port: localPort };
}

function openListener(namespace: NetworkNamespace | undefined, wanted: ListenOptions): { fd: number; transparent: boolean } {
  try {
    return inNamespace(namespace, () => listenHere(wanted.host, wanted));
  } catch (thrown) {
    // A kernel without IPv6: the wildcard of both families is then that of IPv4.
    const bare = wanted.host === "::" && isCallOf(thrown, "socket", "EAFNOSUPPORT");
    if (!bare) throw listenError(wanted, thrown);
  }
  try {
    return inNamespace(namespace, () => listenHere("0.0.0.0", wanted));
  } catch (thrown) {
    throw listenError(wanted, thrown);
  }
}

function listenHere(host: string, wanted: ListenOptions): { fd: number; transparent: boolean } {
  const family = addressFamily(host);
  return guarded(openSocket(family, SOCK_STREAM), (fd) => {
    setMark(fd, wanted.mark);
    setReuseAddress(fd);
    if (wanted.reusePort) setReusePort(fd);
    if (family === AF_INET6) setDualStack(fd);
    if (wanted.keepalive !== undefined) setKeepalive(fd, wanted.keepalive);
    setNoDelay(fd);
    const transparent = wanted.transparent && granted(() => setTransparent(fd, family));
    bindSocket(fd, encodeSocketAddress(host, wanted.port));
    listenSocket(fd, wanted.backlog);
    return { fd, transparent };
  });
}

function openDialler(namespace: NetworkNamespace | undefined, wanted: DialOptions): { fd: number; sourceKept: boolean } {
  try {
    const host = canonicalIp(wanted.host);
    return inNamespace(namespace, () => diallerHere(host, wanted));
  } catch (cause) {
    throw new MeshError("LINUX_DIAL_FAILED", `cannot make a socket for ${wanted.host}:${wanted.port}: ${messageOf(cause)}`, {
      cause,
      details: { errno: errnoOf(cause) },
    });
  }
}

function diallerHere(host: string, wanted: DialOptions): { fd: number; sourceKept: boolean } {
  const family = addressFamily(host);
  return guarded(openSocket(family, SOCK_STREAM), (fd) => {
    setMark(fd, wanted.mark);
    setNoDelay(fd);
    if (wanted.keepalive !== undefined) setKeepalive(fd, wanted.keepalive);
    const source = wanted.source;
    const sourceKept = source !== undefined && granted(() => bindForeign(fd, family, source));
    return { fd, sourceKept };
  });
}

function bindForeign(fd: number, family: number, source: string): void {
  const ip = canonicalIp(source);
  if (addressFamily(ip) !== family) throw new MeshError("LINUX_BAD_ADDRESS", `${source} is not of the destination's address family`);
  setTransparent(fd, family);
  setFreebind(fd, family);
  setBindWithoutPort(fd);
  bindSocket(fd, encodeSocketAddress(ip, 0));
}

/** Hands the descriptor to Node; it is closed when Node refuses it. */
function adopt(fd: number, { host, port }: DialOptions): Socket {
  try {
    // Not in the typings: without it Node would read from a socket that is not connected yet.
    const options: SocketConstructorOpts & { manualStart: true } = { fd, allowHalfOpen: true, manualStart: true };
    const socket = new Socket(options);
    keepErrorsHarmless(socket);
    // Reading must not start by itself once the socket is connected.
    socket.pause();
    return socket;
  } catch (cause) {
    closeDescriptor(fd);
    throw new MeshError("LINUX_DIAL_FAILED", `the event loop refused the socket for ${host}:${port}`, { cause });
  }
}

function guarded<T>(fd: number, use: (fd: number) => T): T {
  try {
    return use(fd);
  } catch (thrown) {
    closeDescriptor(fd);
    throw thrown;
  }
}

function granted(attempt: () => void): boolean {
  try {
    attempt();
    return true;
  } catch {
    return false;
  }
}

/** A server that failed after it took the descriptor closed it, and the number may be somebody else's by now. */
function closeIfStill(fd: number, inode: number): void {
  try {
    if (fstatSync(fd).ino === inode) closeSync(fd);
  } catch {
    // Closed already.
  }
}

function isCallOf(thrown: unknown, call: string, errno: string): boolean {
  return thrown instanceof MeshError && thrown.details["call"] === call && thrown.details["errno"] === errno;
}

function listenError({ host, port }: ListenOptions, cause: unknown): MeshError {
  return new MeshError("LINUX_LISTEN_FAILED", `cannot listen on ${host}:${port}: ${messageOf(cause)}`, { cause, details: { errno: errnoOf(cause) } });
}
