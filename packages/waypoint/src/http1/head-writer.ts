/** Heads of HTTP/1 messages as text. Framing and connection fields are written here and never taken over from a message. */
import { STATUS_CODES } from "node:http";
import type { HeaderFields } from "@fairway/model";
import type { MeshError } from "@fairway/runtime";
import { waypointError } from "../failure.ts";
import { isAuthority, isConnectionField, isFieldValue, isPathAndQuery, isToken } from "../message-rules.ts";

/** Throws WAYPOINT_UNSENDABLE for what would not be one request line and one Host. */
export function requestLines(method: string, path: string, authority: string): string {
  if (!isToken(method)) throw unsendable("a method that is no token");
  if (!isPathAndQuery(path) || (path.charCodeAt(0) !== 0x2f && path !== "*")) throw unsendable("a path that is none");
  if (authority !== "" && !isAuthority(authority)) throw unsendable("an authority that is none");
  return `${method} ${path} HTTP/1.1\r\nhost: ${authority}\r\n`;
}

export function statusLine(status: number): string {
  return statusLines[status] ?? `HTTP/1.1 ${status} \r\n`;
}

/**
 * The fields that are passed on. `te` has its own line, which Connection must name. Throws WAYPOINT_UNSENDABLE for a field that would break
 * out of its line: the last guard against a value put together from data (written as latin1, U+010A would be a line feed).
 */
export function fieldLines(headers: HeaderFields): string {
  const { flat } = headers;
  let text = "";
  for (let at = 0; at < flat.length; at += 2) {
    const name = flat[at] ?? "";
    if (isConnectionField(name) || name === "te" || name === "host") continue;
    const value = flat[at + 1] ?? "";
    if (!isToken(name) || !isFieldValue(value)) throw unsendable("a field with a control character");
    text += `${name}: ${value}\r\n`;
  }
  return text;
}

const statusLines: readonly (string | undefined)[] = Array.from({ length: 600 }, (_, status) =>
  STATUS_CODES[status] === undefined ? undefined : `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n`,
);

function unsendable(what: string): MeshError {
  return waypointError("WAYPOINT_UNSENDABLE", `${what} cannot be sent; do header changes or rewrites of the route make it?`);
}
