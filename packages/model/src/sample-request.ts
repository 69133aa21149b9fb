/** Requests, routes and facts for tests. */
import { parseIp } from "./address.ts";
import { HeaderFields } from "./header-fields.ts";
import type { RequestFacts, RequestHead } from "./http-request.ts";
import { type HttpRoute, noHeaderChanges, type RouteMatch, type RouteTable } from "./http-route.ts";
import type { SpiffeId } from "./identity.ts";

export function aHead(
  path: string,
  fields: { method?: string; authority?: string; headers?: Readonly<Record<string, string | readonly string[]>> } = {},
): RequestHead {
  return { method: fields.method ?? "GET", scheme: "http", authority: fields.authority ?? "api.shop", path, headers: HeaderFields.of(fields.headers ?? {}) };
}

export function aRoute(name: string, match: Partial<RouteMatch> = {}, action?: Partial<Extract<HttpRoute["action"], { kind: "forward" }>>): HttpRoute {
  return {
    name,
    match: { path: { kind: "path-prefix", value: "/" }, method: undefined, headers: [], query: [], grpc: false, ...match },
    action: {
      kind: "forward",
      backends: [{ cluster: name, weight: 1, requestHeaders: noHeaderChanges, responseHeaders: noHeaderChanges }],
      timeoutMs: undefined,
      retry: undefined,
      rewrite: undefined,
      mirrors: [],
      ...action,
    },
    requestHeaders: noHeaderChanges,
    responseHeaders: noHeaderChanges,
  };
}

export function aTable(...routes: readonly HttpRoute[]): RouteTable {
  return { name: "table", virtualHosts: [{ name: "all", domains: ["*"], routes }] };
}

export function someFacts(head: RequestHead, fields: Partial<RequestFacts> = {}): RequestFacts {
  const source = { ip: parseIp("10.0.0.9"), port: 40_000 };
  return {
    head,
    identity: "spiffe://cluster.local/ns/shop/sa/web" as SpiffeId,
    source,
    remote: source,
    destination: { ip: parseIp("10.1.0.1"), port: 8080 },
    serverName: undefined,
    claims: undefined,
    ...fields,
  };
}
