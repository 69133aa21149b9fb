/** Waypoint resources for tests, in a form of their own: what the bytes of the wire mean is the codec's business, and tested there. */
import { deserialize, serialize } from "node:v8";
import { type Cluster, type ClusterEndpoints, type RouteTable, type ServedTarget, unlimited } from "@fairway/model";
import { clusterTypeUrl, endpointTypeUrl, listenerTypeUrl, routeTypeUrl } from "./envoy-types.ts";
import type { ResourceContent } from "./resource-source.ts";
import type { WaypointDecoder, WaypointResources } from "./waypoint-state.ts";

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

const read = (body: Uint8Array): never => deserialize(body) as never;

export const testDecoder: WaypointDecoder = { target: read, routes: read, cluster: read, endpoints: read };

export const asTarget = (value: ServedTarget): ResourceContent => content(value.name, value);
export const asRoutes = (value: RouteTable): ResourceContent => content(value.name, value);
export const asCluster = (value: Cluster): ResourceContent => content(value.name, value);
export const asEndpoints = (value: ClusterEndpoints): ResourceContent => content(value.cluster, value);

export const garbage = (name: string): ResourceContent => ({ name, body: Buffer.from("{") });

type Push = { readonly set?: readonly ResourceContent[]; readonly removed?: readonly string[] };

const push =
  (typeUrl: string) =>
  ({ set = [], removed = [] }: Push): WaypointResources => ({ typeUrl, resources: set, removed });

export const targetsPush: (push: Push) => WaypointResources = push(listenerTypeUrl);
export const routesPush: (push: Push) => WaypointResources = push(routeTypeUrl);
export const clustersPush: (push: Push) => WaypointResources = push(clusterTypeUrl);
export const endpointsPush: (push: Push) => WaypointResources = push(endpointTypeUrl);

function content(name: string, value: unknown): ResourceContent {
  return { name, body: serialize(value) };
}
