/**
 * What a client may say of itself and of its request (waypoint contract 2.6, 6.1): nothing that proxies say to each other. Its address is
 * appended to X-Forwarded-For, and the request gets an id.
 */
import { HeaderFields, type IpAddress, type RequestHead, type SocketAddress, tryParseIp, tryParseSocketAddress } from "@fairway/model";
import type { Stage } from "../exchange.ts";

export interface SanitiseOptions {
  /** Proxies in front of the client's pod whose X-Forwarded-For is believed; 0 believes nobody. */
  readonly trustedHops: number;
  readonly newRequestId: () => string;
}

/** Between proxies only: whoever sets them from outside wants to pass for one. */
const reservedPrefixes: readonly string[] = ["x-envoy-", "x-istio-", "l5d-"];
const reserved: ReadonlySet<string> = new Set(["x-forwarded-client-cert"]);
const requestId = /^[\x21-\x7e]{1,128}$/;

export function sanitise({ trustedHops, newRequestId }: SanitiseOptions): Stage {
  return (exchange, next) => {
    const { head, downstream } = exchange;
    const headers = withoutReserved(head.headers);
    exchange.remote = remoteOf(headers, downstream.source, trustedHops);
    const forwardedFor = headers.getAll("x-forwarded-for").join(", ");
    headers.set("x-forwarded-for", forwardedFor === "" ? downstream.source.ip : `${forwardedFor}, ${downstream.source.ip}`);
    if (!headers.has("x-forwarded-proto")) headers.append("x-forwarded-proto", head.scheme);
    const id = headers.get("x-request-id");
    if (id === undefined || !requestId.test(id)) headers.set("x-request-id", newRequestId());
    exchange.head = { ...head, headers } satisfies RequestHead;
    return next();
  };
}

function withoutReserved({ flat }: HeaderFields): HeaderFields {
  const kept: string[] = [];
  for (let at = 0; at < flat.length; at += 2) {
    const name = flat[at] ?? "";
    if (!isReserved(name)) kept.push(name, flat[at + 1] ?? "");
  }
  return new HeaderFields(kept);
}

function isReserved(name: string): boolean {
  return reserved.has(name) || reservedPrefixes.some((prefix) => name.startsWith(prefix));
}

/** The address that the outermost of the trusted proxies saw. Anything unreadable there is nobody's address: the pod's own stands. */
function remoteOf(headers: HeaderFields, source: SocketAddress, trustedHops: number): SocketAddress {
  if (trustedHops === 0) return source;
  const addresses = headers
    .getAll("x-forwarded-for")
    .flatMap((value) => value.split(","))
    .map((text) => text.trim());
  const text = addresses.at(-trustedHops) ?? "";
  const ip: IpAddress | undefined = tryParseIp(text) ?? tryParseSocketAddress(text)?.ip;
  return ip === undefined ? source : { ip, port: 0 };
}
