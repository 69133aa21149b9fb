/**
 * TCP and UDP in the process's own namespace by Node alone: no privileges, no marks, nothing foreign. For tests and for running without a mesh
 * node; it passes the same compliance suite as the kernel's.
 */
import { Socket } from "node:net";
import { type Clock, MeshError, messageOf, systemClock } from "@fairway/runtime";
import { connect, keepErrorsHarmless } from "./dial.ts";
import { listenerOf, listening, pausedServer } from "./listener.ts";
import type { DialOptions, Listener, PodNetwork } from "./pod-network.ts";
import { localEndpoint } from "./pod-network-linux.ts";
import { canonicalIp } from "./socket-address.ts";
import { udpSocketIn } from "./udp.ts";

export interface HostPodNetworkOptions {
  readonly clock?: Clock;
  /** Stands in for a redirect: where the client of this socket is to have wanted to go; undefined for its local address. */
  readonly originalDestination?: (socket: Socket) => { ip: string; port: number } | undefined;
}

export function hostPodNetwork(options: HostPodNetworkOptions = {}): PodNetwork {
  const { clock = systemClock, originalDestination } = options;
  const listeners = new Set<Listener>();
  return {
    namespace: undefined,
    async listen({ host, port, reusePort, backlog, keepalive, onConnection }) {
      const server = pausedServer((socket) => {
        if (keepalive !== undefined) socket.setKeepAlive(true, keepalive.timeMs);
        onConnection(socket);
      });
      try {
        await listening(server, () => server.listen({ host, port, backlog, reusePort, ipv6Only: false }));
      } catch (cause) {
        throw new MeshError("LINUX_LISTEN_FAILED", `cannot listen on ${host}:${port}: ${messageOf(cause)}`, { cause });
      }
      const listener = listenerOf(server, false, (closed) => listeners.delete(closed));
      listeners.add(listener);
      return listener;
    },
    async dial(wanted) {
      wanted.signal.throwIfAborted();
      const host = checkedHost(wanted);
      if (wanted.source !== undefined) {
        try {
          return { socket: await dialFrom(host, wanted, wanted.source, clock), sourceKept: true };
        } catch (thrown) {
          // Only an address that is not ours is a reason to go on without it.
          if (!(thrown instanceof MeshError) || !bindFailures.has(String(thrown.details["errno"]))) throw thrown;
        }
      }
      return { socket: await dialFrom(host, wanted, undefined, clock), sourceKept: false };
    },
    // A mark needs privileges.
    datagrams: (wanted) => udpSocketIn(undefined, { ...wanted, mark: 0 }),
    originalDestination: (socket) => originalDestination?.(socket) ?? localEndpoint(socket),
    async [Symbol.asyncDispose]() {
      for (const listener of [...listeners]) listener.close();
    },
  };
}

const bindFailures = new Set(["EADDRNOTAVAIL", "EINVAL", "ERR_INVALID_IP_ADDRESS", "EAFNOSUPPORT"]);

async function dialFrom(host: string, wanted: DialOptions, localAddress: string | undefined, clock: Clock): Promise<Socket> {
  const socket = new Socket({ allowHalfOpen: true });
  keepErrorsHarmless(socket);
  socket.pause();
  await connect(socket, { ...wanted, host, localAddress, clock });
  socket.setNoDelay(true);
  if (wanted.keepalive !== undefined) socket.setKeepAlive(true, wanted.keepalive.timeMs);
  return socket;
}

function checkedHost({ host, port }: DialOptions): string {
  try {
    return canonicalIp(host);
  } catch (cause) {
    throw new MeshError("LINUX_DIAL_FAILED", `cannot connect to ${host}:${port}: it is not an IP address`, { cause });
  }
}
