/** UDP sockets inside a network namespace. */
import { createSocket, type Socket } from "node:dgram";
import { MeshError, messageOf } from "@fairway/runtime";
import { inNamespace, type NetworkNamespace } from "./namespace.ts";
import { addressFamily, encodeSocketAddress } from "./socket-address.ts";
import { setDualStack, setMark, setReuseAddress, setReusePort } from "./socket-options.ts";
import { AF_INET6, bindSocket, closeDescriptor, connectSocket, errnoOf, openSocket, SOCK_DGRAM } from "./system-calls.ts";

export interface UdpOptions {
  readonly host: string;
  readonly port: number;
  /** SO_MARK, 0 for none. */
  readonly mark?: number;
  readonly reusePort?: boolean;
}

/** Of the sockets made here. */
const descriptors = new WeakMap<Socket, number>();

/**
 * Takes a socket out of those that share its port: what comes from now on goes to the others, or is refused by the kernel when there are
 * none. What has come already is still read, and answers still leave from it. Only for sockets of `udpSocketIn` that are open.
 *
 * The kernel passes over connected sockets when it chooses among those of a port (Linux 5.4 and later). Connected to itself, a socket hears
 * of nobody; Node does not know of it, and sends to whom it is told.
 */
export function leavePort(socket: Socket): void {
  const fd = descriptors.get(socket);
  const { address, port } = socket.address();
  if (fd !== undefined) connectSocket(fd, encodeSocketAddress(address, port));
}

/** A socket bound in `namespace`, receiving. `::` takes IPv4 too. Throws LINUX_LISTEN_FAILED. The caller closes it. */
export async function udpSocketIn(namespace: NetworkNamespace | undefined, options: UdpOptions): Promise<Socket> {
  const { host, port } = options;
  let fd: number | undefined;
  try {
    const family = addressFamily(host);
    fd = inNamespace(namespace, () => boundHere(family, options));
    const socket = createSocket(family === AF_INET6 ? "udp6" : "udp4");
    // An error that nobody listens for yet (ICMP unreachable) must not end the process.
    socket.on("error", () => {});
    try {
      await bound(socket, fd);
      descriptors.set(socket, fd);
    } catch (thrown) {
      socket.close();
      throw thrown;
    }
    return socket;
  } catch (cause) {
    if (fd !== undefined) closeDescriptor(fd);
    throw new MeshError("LINUX_LISTEN_FAILED", `cannot receive datagrams on ${host}:${port}: ${messageOf(cause)}`, {
      cause,
      details: { errno: errnoOf(cause) },
    });
  }
}

function boundHere(family: number, { host, port, mark = 0, reusePort = false }: UdpOptions): number {
  const fd = openSocket(family, SOCK_DGRAM);
  try {
    setMark(fd, mark);
    if (reusePort) {
      setReuseAddress(fd);
      setReusePort(fd);
    }
    if (family === AF_INET6) setDualStack(fd);
    bindSocket(fd, encodeSocketAddress(host, port));
    return fd;
  } catch (thrown) {
    closeDescriptor(fd);
    throw thrown;
  }
}

function bound(socket: Socket, fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once("error", reject);
    socket.bind({ fd, exclusive: true }, () => {
      socket.off("error", reject);
      resolve();
    });
  });
}
