/** The two ends of a socket in the mesh's words, and how a refused one is closed. */
import type { Socket } from "node:net";
import { type SocketAddress, tryParseIp } from "@fairway/model";

/** Undefined when the socket is already gone. An IPv4-mapped address is its IPv4 form. */
export function remoteEnd(socket: Socket): SocketAddress | undefined {
  return socketEnd(socket.remoteAddress, socket.remotePort);
}

/** Undefined when the socket is already gone. */
export function localEnd(socket: Socket): SocketAddress | undefined {
  return socketEnd(socket.localAddress, socket.localPort);
}

/** Undefined when the text is no address. A link-local IPv6 address loses its zone: the mesh knows none. */
export function socketEnd(ip: string | undefined, port: number | undefined): SocketAddress | undefined {
  const parsed = ip === undefined ? undefined : tryParseIp(ip.split("%", 1)[0] ?? "");
  return parsed === undefined || port === undefined ? undefined : { ip: parsed, port };
}

/** The application's connect has succeeded already: a reset is the only way left to say no. */
export function refuse(socket: Socket): void {
  if (!socket.destroyed) socket.resetAndDestroy();
}
