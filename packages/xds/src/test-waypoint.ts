/** Small waypoint resources for tests. */
import { type Cluster, type ClusterEndpoints, type RouteTable, type ServedTarget, unlimited } from "@fairway/model";
import {
  clusterTypeUrl,
  encodeCluster,
  encodeEndpoints,
  encodeRouteTable,
  encodeTarget,
  endpointTypeUrl,
  listenerTypeUrl,
  routeTypeUrl,
} from "@fairway/protocol";
import type { ResourceContent } from "./resource-source.ts";
import type { WaypointResources } from "./waypoint-state.ts";

export function target(name: string, routes: string, hostname: string = name): ServedTarget {
  const port = { port: 80, protocol: "http", routes, tcpBackends: [], policies: [], tokens: [] } as const;
  return { name, kind: "service", namespace: "shop", hostname, addresses: [], ports: [port], anyPort: undefined };
}

export function routeTable(name: string, host = "first"): RouteTable {
  return { name, virtualHosts: [{ name: host, domains: ["*"], routes: [] }] };
}

export function cluster(name: string, connectTimeoutMs = 1): Cluster {
  const service = { namespace: "shop", hostname: name, port: 80 };
  return { name, service, protocol: "same", connectTimeoutMs, loadBalancing: "round-robin", limits: unlimited, ejection: undefined };
}

export function endpoints(name: string): ClusterEndpoints {
  return { cluster: name, localities: [] };
}

export const asTarget = (value: ServedTarget): ResourceContent => ({ name: value.name, body: encodeTarget(value) });
export const asRoutes = (value: RouteTable): ResourceContent => ({ name: value.name, body: encodeRouteTable(value) });
export const asCluster = (value: Cluster): ResourceContent => ({ name: value.name, body: encodeCluster(value) });
export const asEndpoints = (value: ClusterEndpoints): ResourceContent => ({ name: value.cluster, body: encodeEndpoints(value) });

export const garbage = (name: string): ResourceContent => ({ name, body: Buffer.from("{") });

type Push = { readonly set?: readonly ResourceContent[]; readonly removed?: readonly string[] };

const push =
  (typeUrl: string) =>
  ({ set = [], removed = [] }: Push): WaypointResources => ({ typeUrl, resources: set, removed });

export const targetsPush: (push: Push) => WaypointResources = push(listenerTypeUrl);
export const routesPush: (push: Push) => WaypointResources = push(routeTypeUrl);
export const clustersPush: (push: Push) => WaypointResources = push(clusterTypeUrl);
export const endpointsPush: (push: Push) => WaypointResources = push(endpointTypeUrl);
