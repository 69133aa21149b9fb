/** The filters of one port: the HTTP connection manager with its chain, or RBAC before the TCP proxy (waypoint contract 2.3, 2.5). */
import { policyForTcp, type RequestPolicy, type ServedPort, type TokenRule, unknownCluster } from "@fairway/model";
import { Filter } from "../gen/resources/envoy/config/listener/v3/listener_components.ts";
import { JwtAuthentication } from "../gen/resources/envoy/extensions/filters/http/jwt_authn/v3/config.ts";
import { RBAC as HttpRbac } from "../gen/resources/envoy/extensions/filters/http/rbac/v3/rbac.ts";
import { Router } from "../gen/resources/envoy/extensions/filters/http/router/v3/router.ts";
import * as http from "../gen/resources/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.ts";
import { RBAC as NetworkRbac } from "../gen/resources/envoy/extensions/filters/network/rbac/v3/rbac.ts";
import * as tcp from "../gen/resources/envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.ts";
import type { Any } from "../gen/resources/google/protobuf/any.ts";
import { tokensFromWire, tokensToWire } from "./jwt-codec.ts";
import type { Harmless, Place } from "./place.ts";
import { policiesFromWire, policiesToWire } from "./rbac-codec.ts";
import { adsSource, checkAdsSource, durationFromWire, durationToWire, isPacked, pack, unpack } from "./values.ts";

type TcpBackends = ServedPort["tcpBackends"];

export interface HttpFilters {
  readonly routes: string;
  readonly policies: readonly RequestPolicy[];
  readonly tokens: readonly TokenRule[];
}

export interface TcpFilters {
  readonly backends: TcpBackends;
  readonly policies: readonly RequestPolicy[];
}

const managerName = "envoy.filters.network.http_connection_manager";
const tcpProxyName = "envoy.filters.network.tcp_proxy";
const networkRbacName = "envoy.filters.network.rbac";
const tokenFilterName = "envoy.filters.http.jwt_authn";
const httpRbacName = "envoy.filters.http.rbac";
const routerName = "envoy.filters.http.router";
const shadowStatPrefix = "istio_dry_run_";
const websocket = "websocket";

const { KEEP_UNCHANGED } = http.HttpConnectionManager_PathWithEscapedSlashesAction;
const { PASS_THROUGH } = http.HttpConnectionManager_ServerHeaderTransformation;

const harmlessInManager: Harmless<http.HttpConnectionManager> = {
  statPrefix: "names a metric",
  proxy100Continue: "interim responses are always passed on",
  serverHeaderTransformation: "the application's server header is never touched",
  generateRequestId: "spans are found by their trace context",
};
const harmlessInRouter: Harmless<Router> = {
  dynamicStats: "adds metrics",
  suppressEnvoyHeaders: "no such headers are added",
};

export function httpFiltersToWire(statPrefix: string, { routes, policies, tokens }: HttpFilters): readonly Filter[] {
  const chain: http.HttpFilter[] = [
    ...(tokens.length === 0 ? [] : [httpFilter(tokenFilterName, pack(JwtAuthentication, tokensToWire(tokens)))]),
    ...policiesToWire(policies).map((rbac) => httpFilter(httpRbacName, pack(HttpRbac, HttpRbac.fromPartial({ ...rbac, ...shadowPrefix(rbac) })))),
    httpFilter(routerName, pack(Router, Router.fromPartial({}))),
  ];
  const manager = http.HttpConnectionManager.fromPartial({
    statPrefix,
    routeSpecifier: { $case: "rds", value: { configSource: adsSource, routeConfigName: routes } },
    httpFilters: chain,
    useRemoteAddress: false,
    normalizePath: true,
    pathWithEscapedSlashesAction: KEEP_UNCHANGED,
    serverHeaderTransformation: PASS_THROUGH,
    proxy100Continue: true,
    streamIdleTimeout: durationToWire(0),
    upgradeConfigs: [{ upgradeType: websocket }],
  });
  return [filter(managerName, pack(http.HttpConnectionManager, manager))];
}

export function isHttp(filters: readonly Filter[]): boolean {
  return filters.some(({ configType }) => configType?.$case === "typedConfig" && isPacked(http.HttpConnectionManager, configType.value));
}

export function httpFiltersFromWire(place: Place, filters: readonly Filter[]): HttpFilters {
  const [only, second] = filters;
  if (only === undefined || second !== undefined) throw place.at("filters").invalid("must be one HTTP connection manager");
  const { routeSpecifier, httpFilters, ...more } = unpack(http.HttpConnectionManager, typedConfig(place.at("filters"), only));
  const at = place.at("http_connection_manager");
  checkManager(at, more);
  if (routeSpecifier?.$case !== "rds") throw at.refuse("route_specifier", routeSpecifier);
  const { configSource, routeConfigName, ...rest } = routeSpecifier.value;
  at.at("rds").refuseRest(http.Rds, rest);
  checkAdsSource(at.at("rds.config_source"), configSource);
  return { routes: at.at("rds.route_config_name").required(routeConfigName), ...chainFromWire(at.at("http_filters"), httpFilters) };
}

/** Everything about connections that our proxy does one way only. */
function checkManager(place: Place, message: Omit<http.HttpConnectionManager, "routeSpecifier" | "httpFilters">): void {
  const { codecType, useRemoteAddress, normalizePath, pathWithEscapedSlashesAction, streamIdleTimeout, upgradeConfigs, ...rest } = message;
  place.refuseRest(http.HttpConnectionManager, rest, harmlessInManager);
  if (codecType !== http.HttpConnectionManager_CodecType.AUTO) throw place.at("codec_type").unsupported();
  if (useRemoteAddress === true) throw place.at("use_remote_address").unsupported();
  if (normalizePath === false) throw place.at("normalize_path").invalid("paths are always normalized");
  if (pathWithEscapedSlashesAction > KEEP_UNCHANGED) throw place.at("path_with_escaped_slashes_action").unsupported();
  if (streamIdleTimeout !== undefined && durationFromWire(place.at("stream_idle_timeout"), streamIdleTimeout) !== 0) {
    throw place.at("stream_idle_timeout").unsupported();
  }
  for (const { upgradeType, enabled, ...others } of upgradeConfigs) {
    place.at("upgrade_configs").refuseRest(http.HttpConnectionManager_UpgradeConfig, others);
    if (upgradeType.toLowerCase() !== websocket || enabled === false) throw place.at("upgrade_configs").invalid("only websocket is supported");
  }
}

/** Tokens first, since policies ask for their claims; then policies; the router last. */
function chainFromWire(place: Place, filters: readonly http.HttpFilter[]): Pick<HttpFilters, "policies" | "tokens"> {
  const policies: RequestPolicy[] = [];
  let tokens: readonly TokenRule[] = [];
  let isRouted = false;
  for (const [index, { name, configType, ...rest }] of filters.entries()) {
    const at = place.at(JSON.stringify(name));
    at.refuseRest(http.HttpFilter, rest);
    if (isRouted) throw at.invalid("stands behind the router");
    const config = configOf(at, configType);
    if (isPacked(JwtAuthentication, config)) {
      if (index > 0) throw at.invalid("must be the first filter");
      tokens = tokensFromWire(at, unpack(JwtAuthentication, config));
    } else if (isPacked(HttpRbac, config)) {
      const { rules, shadowRules, ...others } = unpack(HttpRbac, config);
      at.refuseRest(HttpRbac, others, { shadowRulesStatPrefix: "names a metric", rulesStatPrefix: "names a metric", trackPerRuleStats: "adds metrics" });
      addPolicies(at, policies, policiesFromWire(at, { rules, shadowRules }));
    } else if (isPacked(Router, config)) {
      at.refuseRest(Router, unpack(Router, config), harmlessInRouter);
      isRouted = true;
    } else throw at.unsupported();
  }
  if (!isRouted) throw place.invalid("the router is missing");
  return { policies, tokens };
}

export function tcpFiltersToWire(statPrefix: string, { backends, policies }: TcpFilters): readonly Filter[] {
  const rbac = policiesToWire(policies.map(policyForTcp)).map((rules) =>
    filter(networkRbacName, pack(NetworkRbac, NetworkRbac.fromPartial({ ...rules, ...shadowPrefix(rules), statPrefix }))),
  );
  return [...rbac, filter(tcpProxyName, pack(tcp.TcpProxy, tcp.TcpProxy.fromPartial({ statPrefix, clusterSpecifier: tcpBackendsToWire(backends) })))];
}

export function tcpFiltersFromWire(place: Place, filters: readonly Filter[]): TcpFilters {
  const policies: RequestPolicy[] = [];
  let backends: TcpBackends | undefined;
  for (const each of filters) {
    const at = place.at(JSON.stringify(each.name));
    const config = typedConfig(at, each);
    if (backends !== undefined) throw at.invalid("stands behind the TCP proxy");
    if (isPacked(NetworkRbac, config)) {
      const { rules, shadowRules, ...rest } = unpack(NetworkRbac, config);
      at.refuseRest(NetworkRbac, rest, { statPrefix: "names a metric", shadowRulesStatPrefix: "names a metric" });
      addPolicies(at, policies, policiesFromWire(at, { rules, shadowRules }));
    } else if (isPacked(tcp.TcpProxy, config)) {
      const { clusterSpecifier, ...rest } = unpack(tcp.TcpProxy, config);
      at.refuseRest(tcp.TcpProxy, rest, { statPrefix: "names a metric" });
      backends = tcpBackendsFromWire(at, clusterSpecifier);
    } else throw at.unsupported();
  }
  if (backends === undefined) throw place.at("filters").invalid("the TCP proxy is missing");
  return { backends, policies };
}

/** Two filters of one action would both have to agree; the policies of one filter are alternatives. */
function addPolicies(place: Place, policies: RequestPolicy[], more: readonly RequestPolicy[]): void {
  if (more.some(({ action }) => policies.some((policy) => policy.action === action))) throw place.invalid("a second filter of the same action");
  policies.push(...more);
}

/** Envoy takes no weight of 0, and none without a cluster. */
function tcpBackendsToWire(backends: TcpBackends): NonNullable<tcp.TcpProxy["clusterSpecifier"]> {
  const used = backends.filter(({ weight }) => weight > 0);
  const [only = { cluster: unknownCluster, weight: 1 }, second] = used;
  if (second === undefined && only.weight === 1) return { $case: "cluster", value: only.cluster };
  const clusters = used.map(({ cluster, weight }) => ({ name: cluster, weight, metadataMatch: undefined }));
  return { $case: "weightedClusters", value: { clusters } };
}

function tcpBackendsFromWire(place: Place, specifier: tcp.TcpProxy["clusterSpecifier"]): TcpBackends {
  if (specifier === undefined) throw place.at("cluster_specifier").missing();
  if (specifier.$case === "cluster") return [{ cluster: place.at("cluster").required(specifier.value), weight: 1 }];
  const at = place.at("weighted_clusters");
  const { clusters, ...rest } = specifier.value;
  at.refuseRest(tcp.TcpProxy_WeightedCluster, rest);
  if (clusters.length === 0) throw at.missing();
  return clusters.map(({ name, weight, ...others }) => {
    at.refuseRest(tcp.TcpProxy_WeightedCluster_ClusterWeight, others);
    if (weight === 0) throw at.at("weight").invalid("must be at least 1");
    return { cluster: at.at("name").required(name), weight };
  });
}

function shadowPrefix({ shadowRules }: { readonly shadowRules: unknown }): { readonly shadowRulesStatPrefix: string } {
  return { shadowRulesStatPrefix: shadowRules === undefined ? "" : shadowStatPrefix };
}

function filter(name: string, config: Any): Filter {
  return { name, configType: { $case: "typedConfig", value: config } };
}

function httpFilter(name: string, config: Any): http.HttpFilter {
  return http.HttpFilter.fromPartial(filter(name, config));
}

function typedConfig(place: Place, { name: _, configType, ...rest }: Filter): Any {
  place.refuseRest(Filter, rest);
  return configOf(place, configType);
}

function configOf(place: Place, configType: Filter["configType"]): Any {
  if (configType?.$case !== "typedConfig") throw place.refuse("config_type", configType);
  return configType.value;
}
