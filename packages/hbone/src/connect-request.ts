/**
 * The header values of a CONNECT: authority, baggage, forwarded and traceparent (ztunnel contract 1.4, 1.5).
 * Parsers take whatever a peer sent, never throw, and drop what they do not understand.
 */
import { formatSocketAddress, isPort, type SocketAddress, tryParseSocketAddress } from "@fairway/model";
import { MeshError } from "@fairway/runtime";

/** Who is at one end, as a peer tells it; unproven, for labels only. */
export interface Baggage {
  readonly clusterName?: string | undefined;
  readonly namespace?: string | undefined;
  /** deployment, cronjob, pod or job. */
  readonly workloadType?: string | undefined;
  readonly workloadName?: string | undefined;
  readonly serviceName?: string | undefined;
  readonly serviceVersion?: string | undefined;
  readonly region?: string | undefined;
  readonly zone?: string | undefined;
}

export type Authority =
  | { readonly kind: "address"; readonly address: SocketAddress }
  | { readonly kind: "hostname"; readonly hostname: string; readonly port: number };

export interface Forwarded {
  readonly client: SocketAddress | undefined;
  /** Hostname of the service that was asked for. */
  readonly host: string | undefined;
}

export interface TraceContext {
  /** 32 lower-case hex digits. */
  readonly traceId: string;
  /** 16 lower-case hex digits. */
  readonly spanId: string;
  readonly sampled: boolean;
}

const workloadTypes: ReadonlySet<string> = new Set(["deployment", "cronjob", "pod", "job"]);
/** Longest header value looked at; the header list limits of the tunnel are of the same order. */
const maxValueLength = 65_536;
/** Visible ASCII and inner spaces: what a header value may hold. */
const headerValue = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/;
/** What a baggage value may hold unescaped; the reference neither escapes nor unescapes. */
const baggageValue = /^[\x21-\x7e]+$/;
const hostname = /^[A-Za-z0-9*_](?:[A-Za-z0-9*_.-]*[A-Za-z0-9*_.])?$/;
const maxHostnameLength = 255;

/** True when `text` can be sent as a header value. */
export function isHeaderValue(text: string): boolean {
  return text.length <= maxValueLength && headerValue.test(text);
}

/** True when `text` can be sent as the name of a network: "" is the name of the common one. */
export function isNetworkName(text: string): boolean {
  return text === "" || isHeaderValue(text);
}

/** `ip:port` or `hostname:port`, the port mandatory; undefined when it is neither. */
export function parseAuthority(text: string): Authority | undefined {
  const address = tryParseSocketAddress(text);
  if (address !== undefined) return { kind: "address", address };
  const colon = text.lastIndexOf(":");
  const name = text.slice(0, Math.max(colon, 0));
  const port = text.slice(colon + 1);
  if (name.length > maxHostnameLength || !hostname.test(name) || !/^\d{1,5}$/.test(port) || !isPort(Number(port))) return undefined;
  // Digits and dots that are no address are a typing error or an attack, never a name.
  if (/^[\d.]+$/.test(name)) return undefined;
  return { kind: "hostname", hostname: name, port: Number(port) };
}

/** Why a request that is no CONNECT to an address is answered 400. What the client wrote is quoted, and no more of it than a name may have. */
export function notAsked(method: string, authority: string): MeshError {
  const quoted = (text: string): string => JSON.stringify(text.slice(0, maxHostnameLength));
  const what = method === "CONNECT" ? `asked for ${quoted(authority)}, expected ip:port or hostname:port` : `asked with ${quoted(method)}, expected CONNECT`;
  return new MeshError("HBONE_BAD_REQUEST", `the client ${what}`);
}

export function formatAuthority(authority: Authority): string {
  return authority.kind === "address" ? formatSocketAddress(authority.address) : `${authority.hostname}:${authority.port}`;
}

/** The baggage header; undefined when nothing is known. Values that would break the format are left out. */
export function formatBaggage(baggage: Baggage): string | undefined {
  const type = baggage.workloadType?.toLowerCase();
  const entries: readonly (readonly [string, string | undefined])[] = [
    ["k8s.cluster.name", baggage.clusterName],
    ["k8s.namespace.name", baggage.namespace],
    [`k8s.${type !== undefined && workloadTypes.has(type) ? type : "pod"}.name`, baggage.workloadName],
    ["service.name", baggage.serviceName],
    ["service.version", baggage.serviceVersion],
    ["cloud.region", baggage.region],
    ["cloud.availability_zone", baggage.zone],
  ];
  const parts: string[] = [];
  for (const [key, value] of entries) {
    if (value === undefined || !baggageValue.test(value) || value.includes(",") || value.includes("=")) continue;
    parts.push(`${key}=${value}`);
  }
  return parts.length === 0 ? undefined : parts.join(",");
}

/** Reads one or several baggage headers; the last value of a key wins, unknown keys are ignored. */
export function parseBaggage(header: string | readonly string[] | undefined): Baggage {
  const found: { -readonly [Key in keyof Baggage]: string } = {};
  for (const value of typeof header === "string" ? [header] : (header ?? [])) {
    if (!isHeaderValue(value)) continue;
    for (const entry of value.split(",")) {
      const [key = "", text = ""] = entry.split("=");
      if (text.trim() !== "") assignBaggage(found, key.trim(), text.trim());
    }
  }
  return found;
}

function assignBaggage(baggage: { -readonly [Key in keyof Baggage]: string }, key: string, value: string): void {
  switch (key) {
    case "k8s.cluster.name":
      baggage.clusterName = value;
      return;
    case "k8s.namespace.name":
      baggage.namespace = value;
      return;
    case "k8s.deployment.name":
    case "k8s.cronjob.name":
    case "k8s.pod.name":
    case "k8s.job.name":
      baggage.workloadType = key.slice("k8s.".length, -".name".length);
      baggage.workloadName = value;
      return;
    case "service.name":
      baggage.serviceName = value;
      return;
    case "service.version":
      baggage.serviceVersion = value;
      return;
    case "cloud.region":
      baggage.region = value;
      return;
    case "cloud.availability_zone":
      baggage.zone = value;
      return;
    default:
  }
}

/** `for="ip:port"`, then `;host=…` when a service was asked for. */
export function formatForwarded(client: SocketAddress, host?: string): string {
  const element = `for="${formatSocketAddress(client)}"`;
  return host === undefined || !hostname.test(host) ? element : `${element};host=${host}`;
}

/** The first element of a `forwarded` header: parameters in any order, any case, quoted or not. */
export function parseForwarded(header: string | undefined): Forwarded {
  let client: SocketAddress | undefined;
  let host: string | undefined;
  if (header === undefined || !isHeaderValue(header)) return { client, host };
  const [element = ""] = header.split(",", 1);
  for (const parameter of element.split(";")) {
    const equals = parameter.indexOf("=");
    if (equals < 0) continue;
    const name = parameter.slice(0, equals).trim().toLowerCase();
    const value = unquote(parameter.slice(equals + 1).trim());
    if (value === "") continue;
    if (name === "for") client ??= tryParseSocketAddress(value);
    else if (name === "host") host ??= value;
  }
  return { client, host };
}

function unquote(text: string): string {
  return text.length >= 2 && text.startsWith('"') && text.endsWith('"') ? text.slice(1, -1).trim() : text;
}

/** A new `traceparent`; `randomBytes` gives as many bytes as asked. One per accepted connection. */
export function makeTraceparent(randomBytes: (size: number) => Uint8Array): string {
  const hex = Buffer.from(randomBytes(24)).toString("hex").padEnd(48, "0");
  return `00-${hex.slice(0, 32)}-${hex.slice(32, 48)}-00`;
}

/** Any version but ff, unknown trailing fields ignored (W3C trace context); undefined for everything else. */
export function parseTraceparent(header: string | undefined): TraceContext | undefined {
  const match = /^([\da-f]{2})-([\da-f]{32})-([\da-f]{16})-([\da-f]{2})(?:$|-)/.exec(header?.trim().toLowerCase() ?? "");
  const [, version, traceId = "", spanId = "", flags = ""] = match ?? [];
  if (match === null || version === "ff" || /^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 };
}
