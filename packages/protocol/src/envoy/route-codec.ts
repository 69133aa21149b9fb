/** envoy.config.route.v3.RouteConfiguration to and from a table of routes (waypoint contract 2.2). */
import type { HeaderMatch, HttpRoute, PathMatch, RouteMatch, RouteTable, VirtualHost } from "@fairway/model";
import { RouteConfiguration } from "../gen/resources/envoy/config/route/v3/route.ts";
import * as wire from "../gen/resources/envoy/config/route/v3/route_components.ts";
import { readMessage } from "../wire.ts";
import { headerChangesFromWire, headerChangesToWire } from "./header-changes-codec.ts";
import { type Harmless, Place } from "./place.ts";
import { routeActionFromWire, routeActionToWire } from "./route-action-codec.ts";
import { headerMatchFromWire, headerMatchToWire, patternFromWire, patternToWire, queryMatchFromWire, queryMatchToWire } from "./text-match-codec.ts";
import { typeUrlOf } from "./values.ts";

export const routeTypeUrl: string = typeUrlOf(RouteConfiguration);

const methodHeader = ":method";
/** What Envoy allows a direct response to hold when nothing is said. */
const defaultBodyLimit = 4096;

const harmlessInTable: Harmless<RouteConfiguration> = {
  validateClusters: "a cluster that does not exist answers 503, here as in Envoy with false",
  maxDirectResponseBodySizeBytes: "the size of a message is bounded already",
  ignorePortInHostMatching: "domains are matched with and without the port",
};
const harmlessInHost: Harmless<wire.VirtualHost> = {
  includeRequestAttemptCount: "the attempt count is always sent",
  metadata: "names the objects of the origin",
};
const harmlessInRoute: Harmless<wire.Route> = {
  metadata: "names the objects of the origin",
  decorator: "names the operation of a span",
  statPrefix: "names a metric",
};

export function encodeRouteTable(table: RouteTable): Uint8Array {
  const longestBody = Math.max(0, ...table.virtualHosts.flatMap(({ routes }) => routes.map(bodySize)));
  const message = RouteConfiguration.fromPartial({
    name: table.name,
    virtualHosts: table.virtualHosts.map(virtualHostToWire),
    validateClusters: false,
    maxDirectResponseBodySizeBytes: longestBody > defaultBodyLimit ? longestBody : undefined,
  });
  return RouteConfiguration.encode(message).finish();
}

/** Throws ProtocolDecodeError and nothing else. */
export function decodeRouteTable(bytes: Uint8Array): RouteTable {
  const { name, virtualHosts, ...rest } = readMessage(RouteConfiguration, RouteConfiguration.$type, bytes);
  const place = new Place(`routes ${JSON.stringify(name)}`);
  place.at("name").required(name);
  place.refuseRest(RouteConfiguration, rest, harmlessInTable);
  return { name, virtualHosts: virtualHosts.map(virtualHostFromWire) };
}

function bodySize({ action }: HttpRoute): number {
  return action.kind === "respond" ? new TextEncoder().encode(action.body).length : 0;
}

function virtualHostToWire({ name, domains, routes }: VirtualHost): wire.VirtualHost {
  return wire.VirtualHost.fromPartial({ name, domains, routes: routes.map(routeToWire), includeRequestAttemptCount: true });
}

function virtualHostFromWire({ name, domains, routes, ...rest }: wire.VirtualHost): VirtualHost {
  const place = new Place(`virtual host ${JSON.stringify(name)}`);
  place.refuseRest(wire.VirtualHost, rest, harmlessInHost);
  return { name, domains, routes: routes.map(routeFromWire) };
}

function routeToWire(route: HttpRoute): wire.Route {
  return wire.Route.fromPartial({
    name: route.name,
    match: matchToWire(route.match),
    action: routeActionToWire(route.action, isRoot(route.match.path)),
    ...headerChangesToWire(route.requestHeaders, route.responseHeaders),
  });
}

function routeFromWire(route: wire.Route, index: number): HttpRoute {
  const { name, match, action, requestHeadersToAdd, requestHeadersToRemove, responseHeadersToAdd, responseHeadersToRemove, ...rest } = route;
  const place = new Place(`route ${name === "" ? index : JSON.stringify(name)}`);
  place.refuseRest(wire.Route, rest, harmlessInRoute);
  const changes = { requestHeadersToAdd, requestHeadersToRemove, responseHeadersToAdd, responseHeadersToRemove };
  return {
    name,
    match: matchFromWire(place.at("match"), place.at("match").required(match)),
    action: routeActionFromWire(place, action),
    ...headerChangesFromWire(place, changes),
  };
}

/** The method is a header like any other, by its pseudo name; the first. */
function matchToWire({ path, method, headers, query, grpc }: RouteMatch): wire.RouteMatch {
  const ofMethod: readonly HeaderMatch[] = method === undefined ? [] : [{ name: methodHeader, value: { kind: "exact", value: method }, invert: false }];
  return wire.RouteMatch.fromPartial({
    pathSpecifier: pathToWire(path),
    headers: [...ofMethod, ...headers].map(headerMatchToWire),
    queryParameters: query.map(queryMatchToWire),
    grpc: grpc ? {} : undefined,
  });
}

export function matchFromWire(place: Place, message: wire.RouteMatch): RouteMatch {
  const { pathSpecifier, caseSensitive, headers, queryParameters, grpc, ...rest } = message;
  place.refuseRest(wire.RouteMatch, rest);
  if (caseSensitive === false) throw place.at("case_sensitive").unsupported();
  if (grpc !== undefined) place.at("grpc").refuseRest(wire.RouteMatch_GrpcRouteMatchOptions, grpc);
  const [first, ...others] = headers.map((header) => headerMatchFromWire(place.at(`headers[${JSON.stringify(header.name)}]`), header));
  const method = first?.name === methodHeader && first.value.kind === "exact" && !first.value.ignoreCase && !first.invert ? first.value.value : undefined;
  return {
    path: pathFromWire(place, pathSpecifier),
    method,
    headers: first === undefined || method !== undefined ? others : [first, ...others],
    query: queryParameters.map((each) => queryMatchFromWire(place.at(`query_parameters[${JSON.stringify(each.name)}]`), each)),
    grpc: grpc !== undefined,
  };
}

function isRoot(path: PathMatch): boolean {
  return path.kind === "path-prefix" && /^\/*$/.test(path.value);
}

/** Envoy's prefix of path elements never ends in a slash; `/` is every path. */
function pathToWire(path: PathMatch): wire.RouteMatch["pathSpecifier"] {
  switch (path.kind) {
    case "exact":
      return { $case: "path", value: path.value };
    case "prefix":
      return { $case: "prefix", value: path.value };
    case "regex":
      return { $case: "safeRegex", value: patternToWire(path.pattern) };
    case "path-prefix":
      return isRoot(path) ? { $case: "prefix", value: "/" } : { $case: "pathSeparatedPrefix", value: path.value.replace(/\/+$/, "") };
  }
}

function pathFromWire(place: Place, path: wire.RouteMatch["pathSpecifier"]): PathMatch {
  switch (path?.$case) {
    case "path":
      return { kind: "exact", value: path.value };
    case "prefix":
      return { kind: "prefix", value: path.value };
    case "safeRegex":
      return { kind: "regex", pattern: patternFromWire(place.at("safe_regex"), path.value) };
    case "pathSeparatedPrefix":
      return { kind: "path-prefix", value: path.value };
    default:
      throw place.refuse("path_specifier", path);
  }
}
