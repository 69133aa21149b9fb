/** Whether packets to an address would leave at all. */
import { inNamespace, type NetworkNamespace } from "./namespace.ts";
import { addressFamily, encodeSocketAddress } from "./socket-address.ts";
import { closeDescriptor, connectSocket, errnoOf, openSocket, SOCK_DGRAM } from "./system-calls.ts";

const anyPort = 9;

/** True when the namespace has a route to `ip`. Sends nothing: connecting a datagram socket only asks the routing tables. */
export function hasRoute(namespace: NetworkNamespace | undefined, ip: string): boolean {
  return inNamespace(namespace, () => {
    let fd: number | undefined;
    try {
      fd = openSocket(addressFamily(ip), SOCK_DGRAM);
      connectSocket(fd, encodeSocketAddress(ip, anyPort));
      return true;
    } catch (thrown) {
      // ENETUNREACH and its relatives, or a kernel without the family; a bad address is the caller's error.
      if (errnoOf(thrown) === undefined) throw thrown;
      return false;
    } finally {
      if (fd !== undefined) closeDescriptor(fd);
    }
  });
}
