/** What header blocks of a tunnel say: a CONNECT, its answer, or nothing that RFC 9113 8.1.1 lets pass. */
import { MeshError } from "@fairway/runtime";
import { isHeaderValue, isNetworkName, parseAuthority } from "../connect-request.ts";
import type { ConnectRequest } from "../engine.ts";
import type { HeaderField } from "./hpack/static-table.ts";

export type ReadRequest =
  | { readonly kind: "connect"; readonly request: ConnectRequest }
  /** Well-formed HTTP that is no CONNECT to an address: answered 400 (ztunnel contract 1.6). */
  | { readonly kind: "refused"; readonly method: string; readonly request: ConnectRequest }
  | { readonly kind: "malformed" };

export interface ReadAnswer {
  readonly status: number;
  readonly baggage: string | undefined;
}

/** Lower-case tokens (RFC 9113 8.2.1, RFC 9110 5.6.2). */
const fieldName = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
/** No NUL, CR or LF anywhere, no blanks at the ends (RFC 9113 8.2.1). */
const badValue = /[\0\r\n]|^[ \t]|[ \t]$/;
/** What may stand in an authority (RFC 3986 3.2); anything else is malformed rather than merely wrong. */
const authorityText = /^[A-Za-z0-9\-._~!$&'()*+,;=:@[\]%]+$/;
/** Fields of one connection only, which HTTP/2 does not have (RFC 9113 8.2.2). */
const connectionFields: ReadonlySet<string> = new Set(["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"]);
const requestPseudo: ReadonlySet<string> = new Set([":method", ":authority", ":scheme", ":path"]);
const answerPseudo: ReadonlySet<string> = new Set([":status"]);

export function readRequest(fields: readonly HeaderField[]): ReadRequest {
  const found = split(fields, requestPseudo);
  if (found === undefined) return { kind: "malformed" };
  const { pseudo, regular } = found;
  const authority = pseudo.get(":authority") ?? "";
  const request: ConnectRequest = {
    authority,
    baggage: single(regular, "baggage"),
    forwarded: single(regular, "forwarded"),
    traceparent: single(regular, "traceparent"),
    forwardedNetwork: single(regular, "x-forwarded-network", isNetworkName),
  };
  const method = pseudo.get(":method");
  if (method === undefined) return { kind: "malformed" };
  if (method !== "CONNECT") {
    // RFC 9113 8.3.1.
    const whole = pseudo.has(":scheme") && pseudo.get(":path") !== "" && pseudo.has(":path");
    return whole ? { kind: "refused", method, request } : { kind: "malformed" };
  }
  // RFC 9113 8.5: `:method` and `:authority`, nothing else.
  if (pseudo.size !== 2 || !authorityText.test(authority)) return { kind: "malformed" };
  return parseAuthority(authority) === undefined ? { kind: "refused", method, request } : { kind: "connect", request };
}

/** Undefined when the block is malformed. */
export function readAnswer(fields: readonly HeaderField[]): ReadAnswer | undefined {
  const found = split(fields, answerPseudo);
  const status = found?.pseudo.get(":status");
  if (found === undefined || status === undefined || !/^[1-9]\d\d$/.test(status)) return undefined;
  return { status: Number(status), baggage: single(found.regular, "baggage") };
}

/** The fields of a CONNECT (ztunnel contract 1.4). Throws HBONE_BAD_REQUEST. */
export function requestFields({ authority, baggage, forwarded, traceparent, forwardedNetwork }: ConnectRequest): HeaderField[] {
  if (parseAuthority(authority) === undefined) {
    throw new MeshError("HBONE_BAD_REQUEST", `${JSON.stringify(authority)} cannot be asked of a tunnel; expected ip:port or hostname:port`);
  }
  const fields: HeaderField[] = [
    [":method", "CONNECT"],
    [":authority", authority],
  ];
  add(fields, "baggage", baggage);
  add(fields, "forwarded", forwarded);
  add(fields, "traceparent", traceparent);
  if (forwardedNetwork !== undefined && isNetworkName(forwardedNetwork)) fields.push(["x-forwarded-network", forwardedNetwork]);
  return fields;
}

export function answerFields(status: number, baggage: string | undefined): HeaderField[] {
  const fields: HeaderField[] = [[":status", String(status)]];
  add(fields, "baggage", baggage);
  return fields;
}

function add(fields: HeaderField[], name: string, value: string | undefined): void {
  if (value !== undefined && isHeaderValue(value)) fields.push([name, value]);
}

/** Pseudo-headers, each once and before all else, and the other fields; undefined when the block is malformed (RFC 9113 8.2 and 8.3). */
function split(fields: readonly HeaderField[], allowed: ReadonlySet<string>): { pseudo: Map<string, string>; regular: HeaderField[] } | undefined {
  const pseudo = new Map<string, string>();
  const regular: HeaderField[] = [];
  for (const field of fields) {
    const [name, value] = field;
    if (badValue.test(value)) return undefined;
    if (name.startsWith(":")) {
      if (regular.length > 0 || pseudo.has(name) || !allowed.has(name)) return undefined;
      pseudo.set(name, value);
      continue;
    }
    if (!fieldName.test(name) || connectionFields.has(name) || (name === "te" && value !== "trailers")) return undefined;
    regular.push(field);
  }
  return { pseudo, regular };
}

/** Repeated fields are joined, which is what baggage asks for (ztunnel contract 1.5); a value that is no plain text counts as absent. */
function single(fields: readonly HeaderField[], name: string, isValid = isHeaderValue): string | undefined {
  let text: string | undefined;
  for (const [other, value] of fields) {
    if (other === name) text = text === undefined ? value : `${text},${value}`;
  }
  return text !== undefined && isValid(text) ? text : undefined;
}
