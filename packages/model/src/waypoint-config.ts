/** What one waypoint serves: the services and workloads bound to it, port by port. `@fairway/protocol` lowers it to Envoy's LDS, RDS, CDS and EDS. */
import type { IpAddress } from "./address.ts";
import type { RouteTable } from "./http-route.ts";
import type { RequestPolicy, TokenRule } from "./request-policy.ts";
import type { Cluster, ClusterEndpoints } from "./upstream-cluster.ts";

/** A bound service, or a bound workload that may be addressed directly. One LDS resource each, so that one that is refused harms no other. */
export interface ServedTarget {
  /** `service/<namespace>/<hostname>` or `workload/<uid>`. */
  readonly name: string;
  readonly kind: "service" | "workload";
  readonly namespace: string;
  /** Of a service its hostname, of a workload its name. */
  readonly hostname: string;
  /** Virtual addresses of a service, addresses of a workload. */
  readonly addresses: readonly IpAddress[];
  /** Of a service: its ports. Of a workload: none are listed, and `anyPort` says what to do with all. */
  readonly ports: readonly ServedPort[];
  readonly anyPort: ServedPort | undefined;
}

export interface ServedPort {
  /** 0 for any port. */
  readonly port: number;
  /** `detect`: by the first bytes. `tcp` covers TLS that passes through. */
  readonly protocol: "http" | "tcp" | "detect";
  /** Name of the RouteTable, for `http` and `detect`. */
  readonly routes: string | undefined;
  /** Where other bytes go, for `tcp` and `detect`; weights are relative. */
  readonly tcpBackends: readonly { readonly cluster: string; readonly weight: number }[];
  readonly policies: readonly RequestPolicy[];
  readonly tokens: readonly TokenRule[];
}

/** Cluster name that stands for the address the client asked for: workloads that are addressed directly. */
export const passthroughCluster = "encap";
/** Cluster name of a backend that does not exist or may not be used: always answers 500. */
export const unknownCluster = "UnknownService";

/** Everything one waypoint was told, at one moment. Never mutated; maps that did not change are shared with the former one. */
export interface WaypointConfig {
  readonly targets: ReadonlyMap<string, ServedTarget>;
  readonly routeTables: ReadonlyMap<string, RouteTable>;
  readonly clusters: ReadonlyMap<string, Cluster>;
  readonly endpoints: ReadonlyMap<string, ClusterEndpoints>;
}
