/**
 * Heads of HTTP/1 messages (RFC 9112 2-5): where one ends, and what it says. Pure; strict where two parsers could read differently.
 * Every fault throws: WAYPOINT_REQUEST_MALFORMED with `details.status`, or WAYPOINT_UPSTREAM_GARBAGE.
 */
import { HeaderFields, type RequestHead } from "@fairway/model";
import type { HttpLimits } from "../http-connection.ts";
import { garbage, isAuthority, isPathAndQuery, isToken, listMembers, malformed, valueCharacters } from "../message-rules.ts";
import { type Framing, requestFraming, responseFraming } from "./framing.ts";
import { type FieldBlock, parseFields, requestFault, responseFault } from "./header-block.ts";

const endOfHead = Buffer.from("\r\n\r\n");
const [lineFeed, carriageReturn, space] = [0x0a, 0x0d, 0x20] as const;

export interface RequestMessage {
  readonly head: RequestHead;
  readonly framing: Framing;
  /** HTTP/1.0 is 0, HTTP/1.1 is 1. */
  readonly minor: 0 | 1;
  readonly keepAlive: boolean;
  readonly upgrade: string | undefined;
  /** The client waits for 100 before it sends the body. */
  readonly expectsContinue: boolean;
  /** It takes trailers (`te: trailers`). */
  readonly takesTrailers: boolean;
}

export interface ResponseMessage {
  readonly status: number;
  readonly headers: HeaderFields;
  readonly framing: Framing;
  readonly keepAlive: boolean;
  readonly upgrade: string | undefined;
}

/**
 * The offset after the empty line that ends a head; -1 while there is none. `from` is where the last search stopped.
 * A line feed without its carriage return ends the search with -2: some parsers see an end there, others do not.
 */
export function findHeadEnd(bytes: Buffer, from: number): number {
  const start = from > 3 ? from - 3 : 0;
  const end = bytes.indexOf(endOfHead, start);
  if (end >= 0) return end + 4;
  for (let at = bytes.indexOf(lineFeed, start); at >= 0; at = bytes.indexOf(lineFeed, at + 1)) {
    if (at === 0 || bytes[at - 1] !== carriageReturn) return -2;
  }
  return -1;
}

/** `text` is the head with the CRLF of its last line, without the empty line. */
export function parseRequest(text: string, limits: HttpLimits): RequestMessage {
  const endOfLine = text.indexOf("\r\n");
  const endOfMethod = text.indexOf(" ");
  const startOfVersion = text.lastIndexOf(" ", endOfLine - 1) + 1;
  if (endOfMethod <= 0 || endOfMethod > endOfLine || startOfVersion <= endOfMethod + 1) throw malformed(400, "the request line is not one");
  const method = text.slice(0, endOfMethod);
  if (!isToken(method)) throw malformed(400, "the method is not a token");
  const minor = requestMinor(text.slice(startOfVersion, endOfLine));
  if (startOfVersion - 1 - endOfMethod - 1 > limits.maxRequestTargetBytes) throw malformed(414, "the request target is too long");
  const target = text.slice(endOfMethod + 1, startOfVersion - 1);

  const fields = parseFields(text, endOfLine + 2, limits.maxHeaderCount, requestFault);
  if (fields.hosts > 1) throw malformed(400, "Host is given more than once");
  if (minor === 1 && fields.hosts === 0) throw malformed(400, "Host is missing");
  if (fields.host !== undefined && !isAuthority(fields.host) && !(minor === 0 && fields.host === "")) throw malformed(400, "Host is not an authority");
  const { scheme, authority, path } = parseTarget(method, target, fields.host ?? "");
  const framing = requestFraming(fields, minor);

  const connection = fields.connection === undefined ? noMembers : listMembers(fields.connection);
  const upgrade = upgradeOf(fields, connection, method, minor);
  if (upgrade !== undefined && framing.kind !== "none") throw malformed(400, "a request to upgrade carries a body");
  const expectsContinue = expectation(fields.expect, minor) && framing.kind !== "none";
  const takesTrailers = fields.te !== undefined && listMembers(fields.te).some((member) => member === "trailers");
  const headers = withoutNominated(fields.flat, connection);
  if (takesTrailers) headers.append("te", "trailers");
  return {
    head: { method, scheme, authority, path, headers },
    framing,
    minor,
    keepAlive: keepsAlive(connection, minor),
    upgrade,
    expectsContinue,
    takesTrailers,
  };
}

/** `method` is that of the request it answers. */
export function parseResponse(text: string, method: string, limits: HttpLimits): ResponseMessage {
  const endOfLine = text.indexOf("\r\n");
  const line = text.slice(0, endOfLine);
  const minor = line.startsWith("HTTP/1.1 ") ? 1 : line.startsWith("HTTP/1.0 ") ? 0 : undefined;
  if (minor === undefined) throw garbage("the status line is not one of HTTP/1");
  const status = parseStatus(line);
  const fields = parseFields(text, endOfLine + 2, limits.maxHeaderCount, responseFault);
  const framing = responseFraming(fields, { minor, method, status });
  const connection = fields.connection === undefined ? noMembers : listMembers(fields.connection);
  const headers = withoutNominated(fields.flat, connection);
  // Metadata of a body that is not sent (RFC 9110 8.6); everywhere else the length is framing, and each side writes its own.
  if (framing.kind === "none" && framing.announced !== undefined) headers.append("content-length", String(framing.announced));
  return {
    status,
    headers,
    framing,
    keepAlive: keepsAlive(connection, minor) && framing.kind !== "until-close" && !framing.doubtful,
    upgrade: fields.upgrade === undefined ? undefined : fields.upgrade.toLowerCase(),
  };
}

const noMembers: readonly string[] = [];

function requestMinor(version: string): 0 | 1 {
  if (version === "HTTP/1.1") return 1;
  if (version === "HTTP/1.0") return 0;
  throw /^HTTP\/[0-9]\.[0-9]$/.test(version) ? malformed(505, "the HTTP version is neither 1.0 nor 1.1") : malformed(400, "the request line has no version");
}

/** Target and Host together (RFC 9112 3.2, 3.3): the authority of an absolute target wins over Host. */
function parseTarget(method: string, target: string, host: string): Pick<RequestHead, "scheme" | "authority" | "path"> {
  if (method === "CONNECT") throw malformed(405, "CONNECT is not served inside a tunnel");
  if (!isPathAndQuery(target)) throw malformed(400, "the request target has a space, a fragment or a character that is not ASCII");
  if (target.charCodeAt(0) === 0x2f) return { scheme: "http", authority: host, path: target };
  if (target === "*") {
    if (method !== "OPTIONS") throw malformed(400, "only OPTIONS may ask for *");
    return { scheme: "http", authority: host, path: target };
  }
  const lower = target.slice(0, 8).toLowerCase();
  const scheme = lower.startsWith("http://") ? "http" : lower === "https://" ? "https" : undefined;
  if (scheme === undefined) throw malformed(400, "the request target is neither a path nor an http URL");
  const start = scheme.length + 3;
  let end = start;
  while (end < target.length && target[end] !== "/" && target[end] !== "?") end += 1;
  const authority = target.slice(start, end);
  if (!isAuthority(authority)) throw malformed(400, "the request target's authority is not one");
  const rest = target.slice(end);
  const path = rest === "" ? (method === "OPTIONS" ? "*" : "/") : rest.startsWith("/") ? rest : `/${rest}`;
  return { scheme, authority, path };
}

/** "HTTP/1.1 200 OK": three digits, then the end or a space. */
function parseStatus(line: string): number {
  const status = Number(line.slice(9, 12));
  if (!/^[1-5][0-9][0-9]$/.test(line.slice(9, 12)) || (line.length > 12 && line.charCodeAt(12) !== space))
    throw garbage("the status is not a number from 100 to 599");
  for (let at = 13; at < line.length; at += 1) if (!valueCharacters[line.charCodeAt(at)]) throw garbage("the reason has a control character");
  return status;
}

function keepsAlive(connection: readonly string[], minor: 0 | 1): boolean {
  if (connection.includes("close")) return false;
  return minor === 1 || connection.includes("keep-alive");
}

/** Only WebSocket is carried; any other protocol a client offers is an offer that is not taken up (RFC 9110 7.8). */
function upgradeOf({ upgrade }: FieldBlock, connection: readonly string[], method: string, minor: 0 | 1): string | undefined {
  if (upgrade === undefined || minor === 0 || method !== "GET" || !connection.includes("upgrade")) return undefined;
  return listMembers(upgrade).includes("websocket") ? "websocket" : undefined;
}

function expectation(expect: string | undefined, minor: 0 | 1): boolean {
  if (expect === undefined || minor === 0) return false;
  if (expect.toLowerCase() !== "100-continue") throw malformed(417, "an expectation that is not 100-continue");
  return true;
}

/** Fields that Connection names end at this hop. */
function withoutNominated(flat: string[], connection: readonly string[]): HeaderFields {
  const nominated = connection.filter((member) => member !== "close" && member !== "keep-alive" && member !== "upgrade" && member !== "te");
  if (nominated.length === 0) return new HeaderFields(flat);
  return new HeaderFields(flat.filter((_, index) => !nominated.includes(flat[index & ~1] ?? "")));
}
