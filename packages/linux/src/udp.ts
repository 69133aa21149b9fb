/** UDP sockets inside a network namespace. */
import { createSocket, type Socket } from "node:dgram";
import { MeshError, messageOf } from "@fairway/runtime";
import { inNamespace, type NetworkNamespace } from "./namespace.ts";
import { addressFamily, encodeSocketAddress } from "./socket-address.ts";
import { setDualStack, setMark, setReuseAddress, setReusePort } from "./socket-options.ts";
import { AF_INET6, bindSocket, closeDescriptor, errnoOf, openSocket, SOCK_DGRAM } from "./system-calls.ts";

export interface UdpOptions {
  readonly host: string;
  readonly port: number;
  /** SO_MARK, 0 for none. */
  readonly mark?: number;
  readonly reusePort?: boolean;
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
