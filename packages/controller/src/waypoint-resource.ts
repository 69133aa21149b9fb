/** One thing one waypoint is told. Derived here from Kubernetes objects; published to that waypoint alone. */
import type { Cluster, ClusterEndpoints, RouteTable, ServedTarget } from "@fairway/model";

export type WaypointResource = {
  /** `<namespace>/<name>` of the Gateway. */
  readonly waypoint: string;
} & (
  | { readonly kind: "target"; readonly value: ServedTarget }
  | { readonly kind: "routes"; readonly value: RouteTable }
  | { readonly kind: "cluster"; readonly value: Cluster }
  | { readonly kind: "endpoints"; readonly value: ClusterEndpoints }
);

/** Unique among all resources of all waypoints. */
export function waypointResourceKey(resource: WaypointResource): string {
  return waypointKey(resource.waypoint, resource.kind, waypointResourceName(resource));
}

/** The same of a resource that is known by its name only: a rejected one. */
export function waypointKey(waypoint: string, kind: WaypointResource["kind"], name: string): string {
  return `${waypoint}|${kind}|${name}`;
}

/** By which the waypoint knows it; unique in its waypoint and kind. */
export function waypointResourceName({ kind, value }: WaypointResource): string {
  return kind === "endpoints" ? value.cluster : value.name;
}
