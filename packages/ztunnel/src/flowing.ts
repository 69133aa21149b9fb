/** The turn in which bytes begin to flow. */
import type { Socket } from "node:net";

/**
 * Sockets are paused from their birth until somebody copies them. Call it in the turn in which the copy starts: the first byte is
 * read in a later one.
 */
export function flowing(socket: Socket): Socket {
  return socket.resume();
}
