/** Header blocks of HTTP/2 as node:http2 gives and takes them - flat lists of names and values - and the messages they are (RFC 9113 8). */
import { HeaderFields, type RequestHead } from "@fairway/model";
import type { HttpLimits } from "../http-connection.ts";
import { isAuthority, isConnectionField, isPathAndQuery, isTrailerField, listMembers, parseContentLength } from "../message-rules.ts";

/** RFC 9113 6.5.2: what a field counts beyond its bytes. */
const fieldOverhead = 32;

export interface ReadRequest {
  readonly head: RequestHead;
  readonly upgrade: string | undefined;
  readonly contentLength: number | undefined;
}

/** The request, or how it is refused. nghttp2 has refused broken pseudo headers and characters before. */
export function readRequest(raw: readonly string[], limits: HttpLimits): ReadRequest | { readonly status: number; readonly detail: string } {
  const pseudo = new Map<string, string>();
  const headers = new HeaderFields();
  const cookies: string[] = [];
  let bytes = 0;
  for (let at = 0; at < raw.length; at += 2) {
    const name = raw[at] ?? "";
    const value = raw[at + 1] ?? "";
    bytes += name.length + value.length + fieldOverhead;
    if (name.startsWith(":")) pseudo.set(name, value);
    // Crumbs of one cookie become one field again: HTTP/1 has no other form (RFC 9113 8.2.3).
    else if (name === "cookie") cookies.push(value);
    else if (!isConnectionField(name) && (name !== "te" || value === "trailers")) headers.append(name, value);
  }
  if (cookies.length > 0) headers.append("cookie", cookies.join("; "));
  if (bytes > limits.maxHeaderBytes) return { status: 431, detail: `header fields of ${bytes} bytes` };
  if (raw.length / 2 > limits.maxHeaderCount) return { status: 431, detail: `${raw.length / 2} header fields` };
  return requestOf(pseudo, headers, raw, limits);
}

function requestOf(
  pseudo: ReadonlyMap<string, string>,
  headers: HeaderFields,
  raw: readonly string[],
  limits: HttpLimits,
): ReadRequest | { readonly status: number; readonly detail: string } {
  const method = pseudo.get(":method") ?? "";
  const protocol = pseudo.get(":protocol")?.toLowerCase();
  const path = pseudo.get(":path") ?? "";
  const host = headers.get("host");
  const authority = pseudo.get(":authority") ?? host ?? "";
  if (method === "CONNECT" && protocol !== "websocket") return { status: protocol === undefined ? 405 : 501, detail: "CONNECT inside the mesh" };
  if (!isAuthority(authority)) return { status: 400, detail: "an authority that is none" };
  if (headers.getAll("host").length > 1 || (host !== undefined && host !== authority)) return { status: 400, detail: "Host and :authority differ" };
  if (path.length > limits.maxRequestTargetBytes) return { status: 414, detail: `a path of ${path.length} bytes` };
  if (!isPathAndQuery(path)) return { status: 400, detail: "a path with characters it cannot have" };
  const scheme = pseudo.get(":scheme");
  if (scheme !== "http" && scheme !== "https") return { status: 400, detail: "a scheme that is not HTTP's" };
  const length = raw.findIndex((name, index) => index % 2 === 0 && name === "content-length");
  const contentLength = length < 0 ? undefined : parseContentLength(raw[length + 1] ?? "");
  if (length >= 0 && contentLength === undefined) return { status: 400, detail: "a content-length that is no number" };
  if (headers.has("expect") && headers.get("expect")?.toLowerCase() !== "100-continue") return { status: 417, detail: "an unknown expectation" };
  headers.delete("host");
  headers.delete("expect");
  // For whom it goes to an upgraded connection is a GET (RFC 8441 5).
  return { head: { method: protocol === undefined ? method : "GET", scheme, authority, path, headers }, upgrade: protocol, contentLength };
}

/** Fields of an answer without pseudo headers and without those of the connection. */
export function readFields(raw: readonly string[]): { readonly fields: HeaderFields; readonly contentLength: number | undefined } {
  const fields = new HeaderFields();
  let contentLength: number | undefined;
  for (let at = 0; at < raw.length; at += 2) {
    const name = raw[at] ?? "";
    const value = raw[at + 1] ?? "";
    if (name === "content-length") contentLength = parseContentLength(value);
    else if (!name.startsWith(":") && !isConnectionField(name)) fields.append(name, value);
  }
  return { fields, contentLength };
}

export function readTrailers(raw: readonly string[]): HeaderFields {
  const trailers = new HeaderFields();
  for (let at = 0; at < raw.length; at += 2) if (isTrailerField(raw[at] ?? "")) trailers.append(raw[at] ?? "", raw[at + 1] ?? "");
  return trailers;
}

export function writeAnswer(status: number, headers: HeaderFields, length: number | undefined): string[] {
  const list = [":status", String(status)];
  appendFields(list, headers);
  if (length !== undefined && status >= 200 && status !== 204) list.push("content-length", String(length));
  return list;
}

export function writeRequest({ method, scheme, authority, path, headers }: RequestHead, upgrade: string | undefined, length: number | undefined): string[] {
  const list = [":method", upgrade === undefined ? method : "CONNECT", ":scheme", scheme, ":authority", authority, ":path", path];
  if (upgrade !== undefined) list.push(":protocol", upgrade);
  appendFields(list, headers);
  if (length !== undefined && upgrade === undefined && (length > 0 || headers.has("content-type"))) list.push("content-length", String(length));
  return list;
}

/** As the object that `sendTrailers` takes. */
export function writeTrailers(trailers: HeaderFields | undefined): Record<string, string | string[]> {
  const object: Record<string, string | string[]> = Object.create(null) as Record<string, string | string[]>;
  for (const [name] of trailers ?? []) {
    if (!isTrailerField(name)) continue;
    const values = [...(trailers?.getAll(name) ?? [])];
    object[name] = values.length === 1 ? (values[0] ?? "") : values;
  }
  return object;
}

function appendFields(list: string[], { flat }: HeaderFields): void {
  for (let at = 0; at < flat.length; at += 2) {
    const name = flat[at] ?? "";
    const value = flat[at + 1] ?? "";
    if (isConnectionField(name) || name === "host" || name.startsWith(":")) continue;
    if (name === "te" && !listMembers(value).includes("trailers")) continue;
    list.push(name, name === "te" ? "trailers" : value);
  }
}
