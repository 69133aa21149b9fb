/** The descriptor behind a Node socket. `_handle.fd` is not documented: it is read here and nowhere else, and the self-test proves it. */
import type { Server, Socket } from "node:net";

/** The descriptor, or undefined when the socket is closed. */
export function descriptorOf(owner: Socket | Server): number | undefined {
  const handle: unknown = Reflect.get(owner, "_handle");
  if (typeof handle !== "object" || handle === null || !("fd" in handle)) return undefined;
  return typeof handle.fd === "number" && handle.fd >= 0 ? handle.fd : undefined;
}
