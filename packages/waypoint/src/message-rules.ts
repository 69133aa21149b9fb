/** What both versions of HTTP hold a message to: characters, authorities, fields that end at this hop, fields a trailer must not carry. */
import type { MeshError } from "@fairway/runtime";
import { type WaypointCode, waypointError } from "./failure.ts";

/** Most bytes of an authority; a DNS name has 253. */
const maxAuthorityLength = 512;
const highestPort = 65_535;

/** By character code: 0 no token character (RFC 9110 5.6.2), 1 a token character, 2 one in upper case. */
export const tokenKinds: Uint8Array = new Uint8Array(256);
/** By character code: 1 where a field value may carry it (RFC 9110 5.5): HTAB, SP, visible, obs-text. */
export const valueCharacters: Uint8Array = new Uint8Array(256);
/** By character code: 1 where a host name may carry it (RFC 3986 reg-name, without the comma that a joined duplicate would bring). */
const hostCharacters = new Uint8Array(256);

for (let code = 0x20; code < 0x100; code += 1) {
  if (code === 0x7f) continue;
  valueCharacters[code] = 1;
  const character = String.fromCharCode(code);
  if (code > 0x7f) continue;
  if (/[a-z0-9!#$%&'*+\-.^_`|~]/.test(character)) tokenKinds[code] = 1;
  if (/[A-Z]/.test(character)) tokenKinds[code] = 2;
  if (/[A-Za-z0-9\-._~%!$&'()*+;=]/.test(character)) hostCharacters[code] = 1;
}
valueCharacters[0x09] = 1;

export function isToken(text: string): boolean {
  for (let at = 0; at < text.length; at += 1) if (!tokenKinds[text.charCodeAt(at)]) return false;
  return text !== "";
}

/** Whether a field may carry the value: no control characters, nothing that does not fit a byte. */
export function isFieldValue(text: string): boolean {
  for (let at = 0; at < text.length; at += 1) if (!valueCharacters[text.charCodeAt(at)]) return false;
  return true;
}

/** Host and optional port (RFC 9110 7.2): no userinfo, no empty host, a port that is one. */
export function isAuthority(text: string): boolean {
  if (text.length === 0 || text.length > maxAuthorityLength) return false;
  let at = 0;
  if (text.charCodeAt(0) === 0x5b) {
    at = text.indexOf("]") + 1;
    if (at < 4 || !/^[0-9A-Fa-f:.]+$/.test(text.slice(1, at - 1))) return false;
  } else {
    while (hostCharacters[text.charCodeAt(at)]) at += 1;
    if (at === 0) return false;
  }
  if (at === text.length) return true;
  if (text.charCodeAt(at) !== 0x3a) return false;
  const digits = text.length - at - 1;
  if (digits < 1 || digits > 5) return false;
  let port = 0;
  for (at += 1; at < text.length; at += 1) {
    const digit = text.charCodeAt(at) - 0x30;
    if (!(digit >= 0 && digit <= 9)) return false;
    port = port * 10 + digit;
  }
  return port <= highestPort;
}

/** Whether a path and query may go on a request line: visible ASCII, no fragment. What it means is left to normalisation. */
export function isPathAndQuery(text: string): boolean {
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code <= 0x20 || code >= 0x7f || code === 0x23) return false;
  }
  return text !== "";
}

/** The digits of Content-Length, or undefined where they are none, too many, or signed. */
export function parseContentLength(text: string): number | undefined {
  if (text.length === 0 || text.length > 15) return undefined;
  let length = 0;
  for (let at = 0; at < text.length; at += 1) {
    const digit = text.charCodeAt(at) - 0x30;
    if (!(digit >= 0 && digit <= 9)) return undefined;
    length = length * 10 + digit;
  }
  return length;
}

/** The members of a comma-separated list, in lower case; empty members are none. */
export function listMembers(value: string): readonly string[] {
  return value
    .toLowerCase()
    .split(",")
    .map((member) => member.trim())
    .filter((member) => member !== "");
}

/** Fields that speak of one connection or frame one message: each side writes its own, none is passed on (RFC 9110 7.6.1). */
export function isConnectionField(name: string): boolean {
  switch (name.length) {
    case 7:
      return name === "upgrade";
    case 10:
      return name === "connection" || name === "keep-alive";
    case 14:
      return name === "content-length" || name === "http2-settings";
    case 16:
      return name === "proxy-connection";
    case 17:
      return name === "transfer-encoding";
    default:
      return false;
  }
}

/** Framing, routing, credentials and what changes how the content is read: nothing that may come after it (RFC 9110 6.5.1). */
const forbiddenTrailers: ReadonlySet<string> = new Set([
  "authorization",
  "cache-control",
  "connection",
  "content-encoding",
  "content-length",
  "content-range",
  "content-type",
  "cookie",
  "expect",
  "host",
  "keep-alive",
  "max-forwards",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "range",
  "set-cookie",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "www-authenticate",
]);

export function isTrailerField(name: string): boolean {
  return !forbiddenTrailers.has(name) && !name.startsWith(":");
}

/** A request that breaks the rules. `status` is what its sender is told. */
export function malformed(status: number, detail: string): MeshError<WaypointCode> {
  return waypointError("WAYPOINT_REQUEST_MALFORMED", detail, { details: { status } });
}

/** An answer that is not HTTP, or breaks its rules. */
export function garbage(detail: string): MeshError<WaypointCode> {
  return waypointError("WAYPOINT_UPSTREAM_GARBAGE", `the upstream's answer breaks HTTP: ${detail}`);
}

/** The client went away before the exchange was over. */
export function clientGone(cause?: unknown): MeshError<WaypointCode> {
  return waypointError("WAYPOINT_CLIENT_GONE", "the client went away", { cause });
}

/**
 * The connection to the endpoint broke. `sent`: any of the request may have been seen. `refused`: the peer said that it did not look at it.
 * `idle`: a connection that had served before ended without a byte of an answer, as it does when the endpoint closes it while the request is on its way.
 */
export function upstreamReset(detail: string, details: { sent: boolean; refused?: boolean; idle?: boolean }, cause?: unknown): MeshError<WaypointCode> {
  return waypointError("WAYPOINT_UPSTREAM_RESET", detail, { cause, details: { refused: false, idle: false, ...details } });
}

/** Methods that may be sent again without asking, when nobody knows whether the first was seen (RFC 9110 9.2.2). */
export function isIdempotent(method: string): boolean {
  return idempotent.has(method);
}

const idempotent: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]);

/** Methods whose requests announce an empty body, because a body is what they are about (RFC 9110 8.6). */
export function announcesEmptyBody(method: string): boolean {
  return method === "POST" || method === "PUT" || method === "PATCH";
}

/** Whether an answer to `method` with `status` never has a body (RFC 9112 6.3). */
export function isBodiless(method: string, status: number): boolean {
  return method === "HEAD" || status === 204 || status === 304 || status < 200;
}
