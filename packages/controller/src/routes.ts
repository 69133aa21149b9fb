/**
 * From routes to the route table of one service port: merged, in the order of the spec (controller contract 5.2). What a route asks for and
 * cannot have is answered 500, by its share; a service without routes goes to its own endpoints.
 */
import type { RouteBackendReference } from "@fairway/kube";
import {
  compareRoutes,
  type HttpRoute,
  noHeaderChanges,
  passthroughCluster,
  type RetryPolicy,
  type RouteAction,
  type RouteMatch,
  type RouteTable,
  unknownCluster,
  type WeightedBackend,
} from "@fairway/model";
import type { RouteProblem, RouteReading, RuleAction, RuleReading } from "./route-reading.ts";

/** Where a reference leads, or why it leads nowhere. */
export type BackendAnswer = { readonly kind: "cluster"; readonly cluster: string } | { readonly kind: "nowhere"; readonly problem: RouteProblem };

export type FindBackend = (reference: RouteBackendReference, from: RouteReading) => BackendAnswer;

type ForwardRule = Extract<RuleAction, { kind: "forward" }>;

/** Of the mesh, where no route says otherwise: what the application has not seen, or says itself that it did not take up. */
export const defaultRetry: RetryPolicy = {
  on: ["connect-failure", "refused-stream", "unavailable", "cancelled"],
  attempts: 2,
  statusCodes: [],
  perTryTimeoutMs: undefined,
  backoff: { baseMs: 25, maxMs: 250 },
};
/** Of a route that asks for no retries: only what cannot have reached the application. */
const unsentRetry: RetryPolicy = { ...defaultRetry, on: ["connect-failure", "refused-stream"] };
const anyRequest: RouteMatch = { path: { kind: "prefix", value: "/" }, method: undefined, headers: [], query: [], grpc: false };

/** Oldest first, then by namespace and name; two kinds of one name in the order of their kinds. */
export function byPrecedence(a: RouteReading, b: RouteReading): number {
  return compareText(a.created, b.created) || compareText(`${a.namespace}/${a.name}`, `${b.namespace}/${b.name}`) || compareText(a.kind, b.kind);
}

/** The table of a port with these routes, in any order; `own` is the cluster of the service itself. */
export function routeTable(name: string, port: number, own: string, readings: readonly RouteReading[], find: FindBackend): RouteTable {
  const routes =
    readings.length === 0
      ? [defaultRoute(own, defaultRetry)]
      : [...readings]
          .sort(byPrecedence)
          .flatMap((reading) => reading.rules.flatMap((rule) => routesOf(rule, reading, find)))
          .sort((a, b) => compareRoutes(a.match, b.match));
  return { name, virtualHosts: [{ name: `inbound|http|${port}`, domains: ["*"], routes }] };
}

/** Of workloads that are addressed directly: nobody's routes apply, and the address is the client's choice. */
export const directTable: RouteTable = {
  name: "direct-http",
  virtualHosts: [{ name: "direct-http", domains: ["*"], routes: [defaultRoute(passthroughCluster, unsentRetry)] }],
};

/** Every problem of a route, its references included. */
export function routeProblems(reading: RouteReading, find: FindBackend): readonly RouteProblem[] {
  return reading.rules.flatMap(({ problems, action }) => [...problems, ...referencesOf(action).flatMap((reference) => problemOf(find(reference, reading)))]);
}

export function referencesOf(action: RuleAction): readonly RouteBackendReference[] {
  return action.kind === "forward" ? [...action.backends, ...action.mirrors].map(({ reference }) => reference) : [];
}

function problemOf(answer: BackendAnswer): readonly RouteProblem[] {
  return answer.kind === "nowhere" ? [answer.problem] : [];
}

function defaultRoute(cluster: string, retry: RetryPolicy): HttpRoute {
  const backend = { cluster, weight: 1, requestHeaders: noHeaderChanges, responseHeaders: noHeaderChanges };
  return {
    name: "default",
    match: anyRequest,
    action: { kind: "forward", backends: [backend], timeoutMs: undefined, retry, rewrite: undefined, mirrors: [] },
    requestHeaders: noHeaderChanges,
    responseHeaders: noHeaderChanges,
  };
}

function routesOf(rule: RuleReading, reading: RouteReading, find: FindBackend): readonly HttpRoute[] {
  const { name, requestHeaders, responseHeaders } = rule;
  const action = actionOf(rule.action, reading, find);
  return rule.matches.map((match) => ({ name, match, action: suited(action, match), requestHeaders, responseHeaders }));
}

function actionOf(action: RuleAction, reading: RouteReading, find: FindBackend): RouteAction {
  if (action.kind === "redirect") return action;
  return (action.kind === "forward" && forwardOf(action, reading, find)) || { kind: "respond", status: 500, body: "" };
}

/** Undefined when no backend can take a request. */
function forwardOf(action: ForwardRule, reading: RouteReading, find: FindBackend): RouteAction | undefined {
  const backends = action.backends
    .filter(({ weight }) => weight > 0)
    .map(({ reference, weight, requestHeaders, responseHeaders }): WeightedBackend => {
      const answer = find(reference, reading);
      return { cluster: answer.kind === "cluster" ? answer.cluster : unknownCluster, weight, requestHeaders, responseHeaders };
    });
  if (backends.every(({ cluster }) => cluster === unknownCluster)) return undefined;
  const mirrors = action.mirrors.flatMap(({ reference, fraction }) => {
    const answer = find(reference, reading);
    return answer.kind === "cluster" && fraction > 0 ? [{ cluster: answer.cluster, fraction }] : [];
  });
  const retry = { ...(action.retry ?? unsentRetry), perTryTimeoutMs: action.perTryTimeoutMs };
  return { kind: "forward", backends, timeoutMs: action.timeoutMs, retry, rewrite: action.rewrite, mirrors };
}

/** A prefix of one slash is replaced by characters, not by path elements: the replacement keeps its slash. */
function suited(action: RouteAction, { path }: RouteMatch): RouteAction {
  if (path.kind !== "prefix") return action;
  if (action.kind === "forward" && action.rewrite?.path?.kind === "prefix") {
    return { ...action, rewrite: { ...action.rewrite, path: { kind: "prefix", value: withSlash(action.rewrite.path.value) } } };
  }
  if (action.kind === "redirect" && action.redirect.path?.kind === "prefix") {
    return { ...action, redirect: { ...action.redirect, path: { kind: "prefix", value: withSlash(action.redirect.path.value) } } };
  }
  return action;
}

function withSlash(path: string): string {
  return path.endsWith("/") ? path : `${path}/`;
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
