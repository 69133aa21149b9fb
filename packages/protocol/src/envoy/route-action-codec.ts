/** What a route does - forward, redirect, respond - to and from Envoy's actions. */
import {
  compilePattern,
  type ForwardAction,
  type Mirror,
  noHeaderChanges,
  type PathChange,
  type Redirect,
  type RetryCondition,
  type RetryPolicy,
  type Rewrite,
  type RouteAction,
  type WeightedBackend,
} from "@fairway/model";
import { RuntimeFractionalPercent } from "../gen/resources/envoy/config/core/v3/base.ts";
import * as wire from "../gen/resources/envoy/config/route/v3/route_components.ts";
import { FractionalPercent, FractionalPercent_DenominatorType } from "../gen/resources/envoy/type/v3/percent.ts";
import { areNoChanges, headerChangesFromWire, headerChangesToWire } from "./header-changes-codec.ts";
import type { Place } from "./place.ts";
import { substitutionFromWire, substitutionToWire } from "./text-match-codec.ts";
import { durationFromWire, durationToWire, inlineText, inlineTextFromWire, timeoutFromWire, timeoutToWire } from "./values.ts";

/** What Envoy does where nothing is said. */
const defaultTimeoutMs = 15_000;
const defaultAttempts = 1;
const defaultBackoff = { baseMs: 25, maxMs: 250 };

/** A path as a whole. */
const wholePath = compilePattern("/.*");
const redirectStatuses: readonly Redirect["status"][] = [301, 302, 303, 307, 308];
const retryConditions: ReadonlySet<string> = new Set<RetryCondition>([
  "connect-failure",
  "refused-stream",
  "reset",
  "gateway-error",
  "5xx",
  "retriable-4xx",
  "retriable-status-codes",
  "cancelled",
  "deadline-exceeded",
  "internal",
  "resource-exhausted",
  "unavailable",
]);

/** `fromRoot`: the route's prefix is `/`, which Envoy replaces by characters, so that the new prefix must end in a slash as well. */
export function routeActionToWire(action: RouteAction, fromRoot: boolean): wire.Route["action"] {
  switch (action.kind) {
    case "forward":
      return { $case: "route", value: forwardToWire(action, fromRoot) };
    case "redirect":
      return { $case: "redirect", value: redirectToWire(action.redirect, fromRoot) };
    case "respond": {
      const body = action.body === "" ? undefined : inlineText(action.body);
      return { $case: "directResponse", value: { status: action.status, body } };
    }
  }
}

export function routeActionFromWire(place: Place, action: wire.Route["action"]): RouteAction {
  switch (action?.$case) {
    case "route":
      return forwardFromWire(place.at("route"), action.value);
    case "redirect":
      return { kind: "redirect", redirect: redirectFromWire(place.at("redirect"), action.value) };
    case "directResponse": {
      const at = place.at("direct_response");
      const { status, body, ...rest } = action.value;
      at.refuseRest(wire.DirectResponseAction, rest);
      if (status < 200 || status > 599) throw at.at("status").invalid(`${status} is not a final status`);
      return { kind: "respond", status, body: body === undefined ? "" : inlineTextFromWire(at.at("body"), body) };
    }
    default:
      throw place.refuse("action", action);
  }
}

function forwardToWire({ backends, timeoutMs, retry, rewrite, mirrors }: ForwardAction, fromRoot: boolean): wire.RouteAction {
  return wire.RouteAction.fromPartial({
    clusterSpecifier: backendsToWire(backends),
    clusterNotFoundResponseCode: wire.RouteAction_ClusterNotFoundResponseCode.INTERNAL_SERVER_ERROR,
    timeout: timeoutToWire(timeoutMs),
    retryPolicy: retry && retryToWire(retry),
    hostRewriteSpecifier: rewrite?.authority === undefined ? undefined : { $case: "hostRewriteLiteral", value: rewrite.authority },
    prefixRewrite: rewrite?.path?.kind === "prefix" ? newPrefix(rewrite.path.value, fromRoot) : "",
    regexRewrite: rewrite?.path === undefined || rewrite.path.kind === "prefix" ? undefined : substitutionToWire(substitutionOf(rewrite.path)),
    requestMirrorPolicies: mirrors.map(mirrorToWire),
  });
}

function forwardFromWire(place: Place, message: wire.RouteAction): ForwardAction {
  const { clusterSpecifier, clusterNotFoundResponseCode, timeout, retryPolicy, hostRewriteSpecifier, prefixRewrite, regexRewrite, ...others } = message;
  const { requestMirrorPolicies, ...rest } = others;
  place.refuseRest(wire.RouteAction, rest);
  if (clusterNotFoundResponseCode === wire.RouteAction_ClusterNotFoundResponseCode.NOT_FOUND) throw place.at("cluster_not_found_response_code").unsupported();
  if (hostRewriteSpecifier !== undefined && hostRewriteSpecifier.$case !== "hostRewriteLiteral")
    throw place.refuse("host_rewrite_specifier", hostRewriteSpecifier);
  const path = pathChangeFromWire(place, prefixRewrite, regexRewrite);
  const rewrite: Rewrite | undefined = hostRewriteSpecifier || path ? { authority: hostRewriteSpecifier?.value, path } : undefined;
  return {
    kind: "forward",
    backends: backendsFromWire(place, clusterSpecifier),
    timeoutMs: timeout === undefined ? defaultTimeoutMs : timeoutFromWire(place.at("timeout"), timeout),
    retry: retryPolicy && retryFromWire(place.at("retry_policy"), retryPolicy),
    rewrite,
    mirrors: requestMirrorPolicies.map((mirror) => mirrorFromWire(place.at("request_mirror_policies"), mirror)),
  };
}

function backendsToWire(backends: readonly WeightedBackend[]): wire.RouteAction["clusterSpecifier"] {
  const [only, second] = backends;
  if (only?.weight === 1 && second === undefined && areNoChanges(only.requestHeaders) && areNoChanges(only.responseHeaders)) {
    return { $case: "cluster", value: only.cluster };
  }
  const clusters = backends.map(({ cluster, weight, requestHeaders, responseHeaders }) =>
    wire.WeightedCluster_ClusterWeight.fromPartial({ name: cluster, weight, ...headerChangesToWire(requestHeaders, responseHeaders) }),
  );
  return { $case: "weightedClusters", value: wire.WeightedCluster.fromPartial({ clusters }) };
}

function backendsFromWire(place: Place, specifier: wire.RouteAction["clusterSpecifier"]): readonly WeightedBackend[] {
  if (specifier?.$case === "cluster") {
    return [{ cluster: place.at("cluster").required(specifier.value), weight: 1, requestHeaders: noHeaderChanges, responseHeaders: noHeaderChanges }];
  }
  if (specifier?.$case !== "weightedClusters") throw place.refuse("cluster_specifier", specifier);
  const at = place.at("weighted_clusters");
  const { clusters, ...rest } = specifier.value;
  at.refuseRest(wire.WeightedCluster, rest);
  const backends = clusters.map((each) => backendFromWire(at.at("clusters"), each));
  if (!backends.some(({ weight }) => weight > 0)) throw at.invalid("no cluster has a weight");
  return backends;
}

function backendFromWire(place: Place, message: wire.WeightedCluster_ClusterWeight): WeightedBackend {
  const { name, weight = 0, requestHeadersToAdd, requestHeadersToRemove, responseHeadersToAdd, responseHeadersToRemove, ...rest } = message;
  place.at("name").required(name);
  const at = place.at(JSON.stringify(name));
  at.refuseRest(wire.WeightedCluster_ClusterWeight, rest);
  const changes = { requestHeadersToAdd, requestHeadersToRemove, responseHeadersToAdd, responseHeadersToRemove };
  return { cluster: name, weight, ...headerChangesFromWire(at, changes) };
}

function retryToWire({ on, attempts, statusCodes, perTryTimeoutMs, backoff }: RetryPolicy): wire.RetryPolicy {
  return wire.RetryPolicy.fromPartial({
    retryOn: on.join(","),
    numRetries: attempts,
    retriableStatusCodes: statusCodes,
    perTryTimeout: perTryTimeoutMs === undefined ? undefined : durationToWire(perTryTimeoutMs),
    retryBackOff: { baseInterval: durationToWire(backoff.baseMs), maxInterval: durationToWire(backoff.maxMs) },
  });
}

function retryFromWire(place: Place, message: wire.RetryPolicy): RetryPolicy {
  const { retryOn, numRetries = defaultAttempts, retriableStatusCodes, perTryTimeout, retryBackOff, ...rest } = message;
  place.refuseRest(wire.RetryPolicy, rest);
  return {
    on: retryOn === "" ? [] : retryOn.split(",").map((condition) => retryConditionFromWire(place.at("retry_on"), condition.trim())),
    attempts: numRetries,
    statusCodes: retriableStatusCodes,
    perTryTimeoutMs: perTryTimeout && timeoutFromWire(place.at("per_try_timeout"), perTryTimeout),
    backoff: retryBackOff === undefined ? defaultBackoff : backoffFromWire(place.at("retry_back_off"), retryBackOff),
  };
}

function retryConditionFromWire(place: Place, condition: string): RetryCondition {
  if (!retryConditions.has(condition)) throw place.at(JSON.stringify(condition)).unsupported();
  return condition as RetryCondition;
}

/** Without a longest interval it is ten times the base, as in Envoy. */
function backoffFromWire(place: Place, { baseInterval, maxInterval, ...rest }: wire.RetryPolicy_RetryBackOff): RetryPolicy["backoff"] {
  place.refuseRest(wire.RetryPolicy_RetryBackOff, rest);
  const baseMs = durationFromWire(place.at("base_interval"), place.at("base_interval").required(baseInterval));
  return { baseMs, maxMs: maxInterval === undefined ? 10 * baseMs : durationFromWire(place.at("max_interval"), maxInterval) };
}

const mirrorDenominator = 1_000_000;
const denominators: readonly number[] = [100, 10_000, mirrorDenominator];

function mirrorToWire({ cluster, fraction }: Mirror): wire.RouteAction_RequestMirrorPolicy {
  const share = { numerator: Math.round(fraction * mirrorDenominator), denominator: FractionalPercent_DenominatorType.MILLION };
  return wire.RouteAction_RequestMirrorPolicy.fromPartial({
    cluster,
    runtimeFraction: fraction === 1 ? undefined : { defaultValue: share },
    disableShadowHostSuffixAppend: true,
  });
}

function mirrorFromWire(place: Place, { cluster, runtimeFraction, ...rest }: wire.RouteAction_RequestMirrorPolicy): Mirror {
  const at = place.at(JSON.stringify(cluster));
  place.at("cluster").required(cluster);
  at.refuseRest(wire.RouteAction_RequestMirrorPolicy, rest, { disableShadowHostSuffixAppend: "the host of a copy is never changed" });
  return { cluster, fraction: runtimeFraction === undefined ? 1 : fractionFromWire(at.at("runtime_fraction"), runtimeFraction) };
}

function fractionFromWire(place: Place, { defaultValue, ...rest }: RuntimeFractionalPercent): number {
  place.refuseRest(RuntimeFractionalPercent, rest);
  const { numerator, denominator, ...others } = place.at("default_value").required(defaultValue);
  place.at("default_value").refuseRest(FractionalPercent, others);
  const whole = denominators[denominator];
  if (whole === undefined) throw place.at("denominator").unknownEnum(denominator);
  return Math.min(1, numerator / whole);
}

function redirectToWire({ scheme, hostname, port, path, status }: Redirect, fromRoot: boolean): wire.RedirectAction {
  return wire.RedirectAction.fromPartial({
    schemeRewriteSpecifier: scheme === undefined ? undefined : { $case: "schemeRedirect", value: scheme },
    hostRedirect: hostname ?? "",
    portRedirect: port ?? 0,
    pathRewriteSpecifier: path && redirectPathToWire(path, fromRoot),
    responseCode: redirectStatuses.indexOf(status) as wire.RedirectAction_RedirectResponseCode,
  });
}

function redirectFromWire(place: Place, message: wire.RedirectAction): Redirect {
  const { schemeRewriteSpecifier, hostRedirect, portRedirect, pathRewriteSpecifier, responseCode, ...rest } = message;
  place.refuseRest(wire.RedirectAction, rest);
  const status = redirectStatuses[responseCode];
  if (status === undefined) throw place.at("response_code").unknownEnum(responseCode);
  if (portRedirect > 65_535) throw place.at("port_redirect").invalid(`${portRedirect} is not a port`);
  return {
    scheme: schemeOf(schemeRewriteSpecifier),
    hostname: hostRedirect === "" ? undefined : hostRedirect,
    port: portRedirect === 0 ? undefined : portRedirect,
    path: pathRewriteSpecifier && redirectPathFromWire(place, pathRewriteSpecifier),
    status,
  };
}

function schemeOf(specifier: wire.RedirectAction["schemeRewriteSpecifier"]): string | undefined {
  if (specifier?.$case === "schemeRedirect") return specifier.value === "" ? undefined : specifier.value;
  return specifier?.value ? "https" : undefined;
}

function redirectPathToWire(path: PathChange, fromRoot: boolean): wire.RedirectAction["pathRewriteSpecifier"] {
  switch (path.kind) {
    case "full":
      return { $case: "pathRedirect", value: path.value };
    case "prefix":
      return { $case: "prefixRewrite", value: newPrefix(path.value, fromRoot) };
    case "regex":
      return { $case: "regexRewrite", value: substitutionToWire(path) };
  }
}

function redirectPathFromWire(place: Place, path: NonNullable<wire.RedirectAction["pathRewriteSpecifier"]>): PathChange {
  switch (path.$case) {
    case "pathRedirect":
      return { kind: "full", value: path.value };
    case "prefixRewrite":
      return { kind: "prefix", value: path.value };
    case "regexRewrite":
      return { kind: "regex", ...substitutionFromWire(place.at("regex_rewrite"), path.value) };
  }
}

/** No prefix at all is the root; Envoy takes "" for no change. */
function newPrefix(value: string, fromRoot: boolean): string {
  return value === "" || (fromRoot && !value.endsWith("/")) ? `${value}/` : value;
}

/** Envoy has no rewrite of a whole path but by a pattern that matches all of it. */
function substitutionOf(path: Exclude<PathChange, { kind: "prefix" }>): { pattern: typeof wholePath; substitution: string } {
  return path.kind === "regex" ? path : { pattern: wholePath, substitution: path.value.replaceAll("\\", "\\\\") };
}

function pathChangeFromWire(place: Place, prefix: string, regex: wire.RouteAction["regexRewrite"]): PathChange | undefined {
  if (prefix !== "" && regex !== undefined) throw place.at("prefix_rewrite").invalid("there is a regex_rewrite as well");
  if (prefix !== "") return { kind: "prefix", value: prefix };
  if (regex === undefined) return undefined;
  const change = substitutionFromWire(place.at("regex_rewrite"), regex);
  const isWhole = change.pattern.source === wholePath.source && !/\\\d/.test(change.substitution.replaceAll("\\\\", ""));
  return isWhole ? { kind: "full", value: change.substitution.replaceAll("\\\\", "\\") } : { kind: "regex", ...change };
}
