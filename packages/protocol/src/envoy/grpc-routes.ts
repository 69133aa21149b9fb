/**
 * Routes as a proxyless gRPC client can follow them (waypoint contract 3.3, 3.4). What it would take wrongly is left out, what it cannot do
 * becomes a call that fails, and what it passes over in silence is said.
 */
import type { Cluster, ForwardAction, HttpRoute, RetryPolicy, RouteTable, WeightedBackend } from "@fairway/model";
import { RouteConfiguration } from "../gen/resources/envoy/config/route/v3/route.ts";
import * as wire from "../gen/resources/envoy/config/route/v3/route_components.ts";
import { areNoChanges } from "./header-changes-codec.ts";
import { headerMatchToWire, patternToWire } from "./text-match-codec.ts";
import { durationToWire } from "./values.ts";

/** A cluster without endpoints: calls fail with UNAVAILABLE, where a cluster that does not exist would block the whole channel. */
export const rejectCluster = "grpc_reject";

const everyPath = { $case: "prefix", value: "" } as const;
const uint32Max = 2 ** 32 - 1;
/** The client takes shares of a hundred without being told a total. */
const wholeShare = 100;
/** Milliseconds; the client computes in 32 bits. */
const longestBackoffMs = 2 ** 31 - 1;

export interface GrpcRoutes {
  readonly configuration: RouteConfiguration;
  /** The clusters that routes point at; `rejectCluster` may be one of them. */
  readonly clusters: ReadonlySet<string>;
  /** What the routes ask for and the client does not do, in words. */
  readonly ignored: readonly string[];
}

/** `known`: clusters that exist. `port`: of the service, which clients always name. */
export function grpcRoutes(name: string, port: number, table: RouteTable, known: ReadonlyMap<string, Cluster>): GrpcRoutes {
  const ignored = new Set<string>();
  const virtualHosts = table.virtualHosts.map(({ name: host, domains, routes }) =>
    wire.VirtualHost.fromPartial({
      name: host,
      domains: [...new Set(domains.flatMap((domain) => withPort(domain, port)))],
      routes: routes.flatMap((route) => routeToWire(route, known, ignored)),
    }),
  );
  return { configuration: RouteConfiguration.fromPartial({ name, virtualHosts }), clusters: clustersOf(virtualHosts), ignored: [...ignored] };
}

/** Every call to one cluster. */
export function plainGrpcRoutes(name: string, cluster: string): GrpcRoutes {
  const route = wire.Route.fromPartial({ match: { pathSpecifier: everyPath }, action: forwardTo(cluster) });
  const virtualHosts = [wire.VirtualHost.fromPartial({ name: "*", domains: ["*"], routes: [route] })];
  return { configuration: RouteConfiguration.fromPartial({ name, virtualHosts }), clusters: new Set([cluster]), ignored: [] };
}

/** The client's authority always has its port; domains without one would never match. */
function withPort(domain: string, port: number): readonly string[] {
  return domain.endsWith("*") || /:\d+$/.test(domain) ? [domain] : [domain, `${domain}:${port}`];
}

function routeToWire(route: HttpRoute, known: ReadonlyMap<string, Cluster>, ignored: Set<string>): readonly wire.Route[] {
  if (!canBeAsked(route, ignored)) return [];
  const headers = route.match.headers.map(headerMatchToWire);
  if (!areNoChanges(route.requestHeaders) || !areNoChanges(route.responseHeaders)) ignored.add(`route ${JSON.stringify(route.name)}: header changes`);
  const action: wire.Route["action"] =
    route.action.kind === "forward" ? { $case: "route", value: forwardToWire(route.name, route.action, known, ignored) } : forwardTo(rejectCluster);
  if (route.action.kind !== "forward") ignored.add(`route ${JSON.stringify(route.name)}: ${route.action.kind}; calls fail instead`);
  return pathsToWire(route.match.path).map((pathSpecifier) => wire.Route.fromPartial({ name: route.name, match: { pathSpecifier, headers }, action }));
}

/** A call is always a POST without a query; the client would take a route that asks for a query, and cannot look at pseudo headers. */
function canBeAsked({ name, match: { method, query, headers } }: HttpRoute, ignored: Set<string>): boolean {
  if (method !== undefined && method !== "POST") return false;
  if (query.length === 0 && !headers.some((header) => header.name.startsWith(":"))) return true;
  ignored.add(`route ${JSON.stringify(name)}: matches on queries and pseudo headers; the route is left out`);
  return false;
}

function pathsToWire(path: HttpRoute["match"]["path"]): readonly NonNullable<wire.RouteMatch["pathSpecifier"]>[] {
  switch (path.kind) {
    case "exact":
      return [{ $case: "path", value: path.value }];
    case "prefix":
      return [{ $case: "prefix", value: path.value }];
    case "regex":
      return [{ $case: "safeRegex", value: patternToWire(path.pattern) }];
    case "path-prefix": {
      const prefix = path.value.replace(/\/+$/, "");
      if (prefix === "") return [{ $case: "prefix", value: "/" }];
      return [
        { $case: "path", value: prefix },
        { $case: "prefix", value: `${prefix}/` },
      ];
    }
  }
}

function forwardTo(cluster: string): NonNullable<wire.Route["action"]> {
  return { $case: "route", value: wire.RouteAction.fromPartial({ clusterSpecifier: { $case: "cluster", value: cluster } }) };
}

function forwardToWire(name: string, action: ForwardAction, known: ReadonlyMap<string, Cluster>, ignored: Set<string>): wire.RouteAction {
  const { backends, timeoutMs, retry, rewrite, mirrors } = action;
  const changes = backends.some(({ requestHeaders, responseHeaders }) => !areNoChanges(requestHeaders) || !areNoChanges(responseHeaders));
  for (const [what, isAsked] of Object.entries({ rewrites: rewrite !== undefined, mirrors: mirrors.length > 0, "header changes": changes })) {
    if (isAsked) ignored.add(`route ${JSON.stringify(name)}: ${what}`);
  }
  return wire.RouteAction.fromPartial({
    clusterSpecifier: backendsToWire(backends, known),
    maxStreamDuration: timeoutMs === undefined ? undefined : { maxStreamDuration: durationToWire(timeoutMs) },
    retryPolicy: retry && retryToWire(retry),
  });
}

function backendsToWire(backends: readonly WeightedBackend[], known: ReadonlyMap<string, Cluster>): NonNullable<wire.RouteAction["clusterSpecifier"]> {
  const used = backends.filter(({ weight }) => weight > 0).map(({ cluster, weight }) => ({ name: known.has(cluster) ? cluster : rejectCluster, weight }));
  const [only, second] = used;
  if (second === undefined) return { $case: "cluster", value: only?.name ?? rejectCluster };
  const clusters = scaled(used);
  const total = clusters.reduce((sum, { weight }) => sum + weight, 0);
  return { $case: "weightedClusters", value: wire.WeightedCluster.fromPartial({ clusters, totalWeight: total === wholeShare ? undefined : total }) };
}

/** To a sum of a hundred where that is exact, and never beyond 32 bits. */
function scaled<T extends { readonly weight: number }>(shares: readonly T[]): readonly T[] {
  const total = shares.reduce((sum, { weight }) => sum + weight, 0);
  if (shares.every(({ weight }) => (weight * wholeShare) % total === 0))
    return shares.map((share) => ({ ...share, weight: (share.weight * wholeShare) / total }));
  if (total <= uint32Max) return shares;
  const limit = uint32Max - shares.length;
  return shares.map((share) => ({ ...share, weight: Math.max(1, Math.floor((share.weight / total) * limit)) }));
}

/** What stands for a gRPC status: an endpoint that cannot be had is UNAVAILABLE, one that is asked too often RESOURCE_EXHAUSTED. */
function retryToWire({ on, attempts, statusCodes, backoff }: RetryPolicy): wire.RetryPolicy | undefined {
  const tokens = new Set(
    on.flatMap((condition): readonly string[] => {
      switch (condition) {
        case "connect-failure":
        case "refused-stream":
        case "reset":
        case "gateway-error":
        case "5xx":
          return ["unavailable"];
        case "retriable-4xx":
          return [];
        case "retriable-status-codes":
          return statusCodes.flatMap((status) => (status === 429 ? ["resource-exhausted"] : status >= 502 && status <= 504 ? ["unavailable"] : []));
        default:
          return [condition];
      }
    }),
  );
  if (tokens.size === 0 || attempts < 1) return undefined;
  const baseMs = Math.min(Math.max(1, backoff.baseMs), longestBackoffMs);
  const maxMs = Math.min(Math.max(baseMs, backoff.maxMs), longestBackoffMs);
  return wire.RetryPolicy.fromPartial({
    retryOn: [...tokens].join(","),
    numRetries: attempts,
    retryBackOff: { baseInterval: durationToWire(baseMs), maxInterval: durationToWire(maxMs) },
  });
}

function clustersOf(virtualHosts: readonly wire.VirtualHost[]): ReadonlySet<string> {
  const names = virtualHosts.flatMap(({ routes }) =>
    routes.flatMap(({ action }) => {
      const specifier = action?.$case === "route" ? action.value.clusterSpecifier : undefined;
      if (specifier?.$case === "weightedClusters") return specifier.value.clusters.map(({ name }) => name);
      return specifier?.$case === "cluster" ? [specifier.value] : [];
    }),
  );
  return new Set(names);
}
