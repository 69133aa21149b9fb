/**
 * What a proxyless gRPC client is told of one name, from the model that waypoints are told of as well (waypoint contract 3). Such a client
 * refuses what Envoy needs - internal addresses, filters it does not know, two endpoints at one address - so that it gets its own form.
 */
import type { Cluster, ClusterEndpoints, Endpoint, LocalityEndpoints, RouteTable, SocketAddress } from "@fairway/model";
import * as cluster from "../gen/resources/envoy/config/cluster/v3/cluster.ts";
import { ClusterLoadAssignment } from "../gen/resources/envoy/config/endpoint/v3/endpoint.ts";
import { LbEndpoint, LocalityLbEndpoints } from "../gen/resources/envoy/config/endpoint/v3/endpoint_components.ts";
import { Listener } from "../gen/resources/envoy/config/listener/v3/listener.ts";
import { RouteConfiguration } from "../gen/resources/envoy/config/route/v3/route.ts";
import { Router } from "../gen/resources/envoy/extensions/filters/http/router/v3/router.ts";
import { HttpConnectionManager } from "../gen/resources/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.ts";
import { LeastRequest } from "../gen/resources/envoy/extensions/load_balancing_policies/least_request/v3/least_request.ts";
import { RoundRobin } from "../gen/resources/envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.ts";
import { WrrLocality } from "../gen/resources/envoy/extensions/load_balancing_policies/wrr_locality/v3/wrr_locality.ts";
import type { Any } from "../gen/resources/google/protobuf/any.ts";
import { healthToWire, localityNameToWire } from "./endpoint-codec.ts";
import { type GrpcRoutes, grpcRoutes, plainGrpcRoutes, rejectCluster } from "./grpc-routes.ts";
import { adsSource, durationToWire, pack, socketAddressToWire } from "./values.ts";

export interface GrpcService {
  /** As the client names it, `host:port`: `xds:///<name>`. */
  readonly name: string;
  readonly port: number;
  /** Where calls go when nobody has routes for the service. */
  readonly cluster: Cluster;
  readonly routes: RouteTable | undefined;
  /** By name; all that the routes may point at. */
  readonly clusters: ReadonlyMap<string, Cluster>;
  readonly endpoints: ReadonlyMap<string, ClusterEndpoints>;
  /** Of a service with a waypoint: calls go there and nowhere else, and the waypoint follows the routes (waypoint contract 3.7). */
  readonly vip: SocketAddress | undefined;
}

export interface GrpcResource {
  readonly name: string;
  readonly bytes: Uint8Array;
}

export interface GrpcResources {
  readonly listener: GrpcResource;
  readonly routes: GrpcResource;
  /** Every cluster that a route names is here, and every cluster has endpoints, if only none: a missing one blocks the channel. */
  readonly clusters: readonly GrpcResource[];
  readonly endpoints: readonly GrpcResource[];
  /** What the routes ask for and such a client does not do, in words for the route's status. */
  readonly ignored: readonly string[];
}

/** Never throws, and never makes what an unmodified client refuses. */
export function grpcResources(service: GrpcService): GrpcResources {
  const { name, vip } = service;
  const routes = routesOf(service);
  const names = [...routes.clusters];
  const known = new Map([...service.clusters, [service.cluster.name, service.cluster]]);
  const endpointsOf = (each: string): readonly LocalityEndpoints[] => (vip === undefined ? (service.endpoints.get(each)?.localities ?? []) : [only(vip)]);
  return {
    listener: { name, bytes: Listener.encode(grpcListener(name)).finish() },
    routes: { name, bytes: RouteConfiguration.encode(routes.configuration).finish() },
    clusters: names.map((each) => ({ name: each, bytes: cluster.Cluster.encode(grpcCluster(each, known.get(each))).finish() })),
    endpoints: names.map((each) => ({
      name: each,
      bytes: ClusterLoadAssignment.encode(grpcEndpoints(each, each === rejectCluster ? [] : endpointsOf(each))).finish(),
    })),
    ignored: routes.ignored,
  };
}

function routesOf({ name, port, cluster: own, routes, clusters, vip }: GrpcService): GrpcRoutes {
  return routes === undefined || vip !== undefined ? plainGrpcRoutes(name, own.name) : grpcRoutes(name, port, routes, clusters);
}

function only(address: SocketAddress): LocalityEndpoints {
  const endpoint: Endpoint = { address, tunnel: "none", workload: "", health: "healthy", weight: 1 };
  return { locality: { region: "", zone: "", subzone: "" }, priority: 0, weight: 1, endpoints: [endpoint] };
}

function grpcListener(name: string): Listener {
  const manager = HttpConnectionManager.fromPartial({
    statPrefix: name,
    routeSpecifier: { $case: "rds", value: { configSource: adsSource, routeConfigName: name } },
    httpFilters: [{ name: "envoy.filters.http.router", configType: { $case: "typedConfig", value: pack(Router, Router.fromPartial({})) } }],
  });
  return Listener.fromPartial({ name, apiListener: { apiListener: pack(HttpConnectionManager, manager) } });
}

/** A client that knows least request takes it; one that does not takes turns. Ejection by consecutive errors is not known to any. */
function grpcCluster(name: string, known: Cluster | undefined): cluster.Cluster {
  const turns = policy(
    "round_robin",
    pack(WrrLocality, { endpointPickingPolicy: { policies: [policy("round_robin", pack(RoundRobin, RoundRobin.fromPartial({})))] } }),
  );
  const least = policy("least_request", pack(LeastRequest, LeastRequest.fromPartial({})));
  return cluster.Cluster.fromPartial({
    name,
    clusterDiscoveryType: { $case: "type", value: cluster.Cluster_DiscoveryType.EDS },
    edsClusterConfig: { edsConfig: adsSource },
    connectTimeout: known && durationToWire(known.connectTimeoutMs),
    lbPolicy: cluster.Cluster_LbPolicy.ROUND_ROBIN,
    loadBalancingPolicy: { policies: known?.loadBalancing === "least-request" ? [least, turns] : [turns] },
    circuitBreakers: known && { thresholds: [{ maxRequests: known.limits.maxRequests }] },
  });
}

function policy(name: string, config: Any): cluster.LoadBalancingPolicy_Policy {
  return { typedExtensionConfig: { name: `envoy.load_balancing_policies.${name}`, typedConfig: config } };
}

const uint32Max = 2 ** 32 - 1;

interface MergedLocality {
  readonly locality: LocalityEndpoints["locality"];
  readonly priority: number;
  weight: number;
  readonly endpoints: Endpoint[];
}

/** One endpoint per address, one entry per locality and priority, priorities from 0 without a gap, and weights that sum up in 32 bits. */
function grpcEndpoints(name: string, localities: readonly LocalityEndpoints[]): ClusterLoadAssignment {
  const merged = merge(localities);
  const priorities = [...new Set(merged.map(({ priority }) => priority))].sort((a, b) => a - b);
  const totals = priorities.map((priority) => merged.reduce((sum, each) => sum + (each.priority === priority ? each.weight : 0), 0));
  const endpoints = merged.map(({ locality, priority, weight, endpoints: members }) => {
    const rank = priorities.indexOf(priority);
    return LocalityLbEndpoints.fromPartial({
      locality: localityNameToWire(locality),
      priority: rank,
      loadBalancingWeight: fitting(weight, totals[rank] ?? weight, merged.length),
      lbEndpoints: members.map(endpointToWire),
    });
  });
  return ClusterLoadAssignment.fromPartial({ clusterName: name, endpoints });
}

/** A locality or an endpoint without a weight gets nothing from a waypoint, and so nothing from a client. */
function merge(localities: readonly LocalityEndpoints[]): readonly MergedLocality[] {
  const merged = new Map<string, MergedLocality>();
  const seen = new Set<string>();
  for (const { locality, priority, weight, endpoints } of localities.toSorted((a, b) => a.priority - b.priority)) {
    const fresh = endpoints.filter((endpoint) => endpoint.weight > 0 && !seen.has(addressKey(endpoint)) && seen.add(addressKey(endpoint)));
    if (weight === 0 || fresh.length === 0) continue;
    const key = JSON.stringify([priority, locality.region, locality.zone, locality.subzone]);
    const entry = merged.get(key) ?? { locality, priority, weight: 0, endpoints: [] };
    entry.weight += weight;
    entry.endpoints.push(...fresh);
    merged.set(key, entry);
  }
  return [...merged.values()];
}

function addressKey({ address: { ip, port } }: Endpoint): string {
  return `${ip} ${port}`;
}

function fitting(weight: number, total: number, count: number): number {
  return total <= uint32Max ? weight : Math.max(1, Math.floor((weight / total) * (uint32Max - count)));
}

function endpointToWire({ address, health, weight }: Endpoint): LbEndpoint {
  return LbEndpoint.fromPartial({
    hostIdentifier: { $case: "endpoint", value: { address: socketAddressToWire(address) } },
    healthStatus: healthToWire(health),
    loadBalancingWeight: weight,
  });
}
