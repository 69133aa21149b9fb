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
export function waypointResourceKey({ waypoint, kind, value }: WaypointResource): string {
  return `${waypoint}|${kind}|${kind === "endpoints" ? value.cluster : value.name}`;
}
