/** A service: names and virtual addresses in front of workloads. Mirrors istio.workload.Service (ztunnel contract 4.1). */
import type { Cidr, NetworkAddress, NetworkId } from "./address.ts";
import type { SpiffeId } from "./identity.ts";
import type { GatewayAddress, PortMapping } from "./workload.ts";

export type LocalityScope = "region" | "zone" | "subzone" | "node" | "cluster" | "network";

export interface LoadBalancing {
  readonly routingPreference: readonly LocalityScope[];
  readonly mode: "unspecified" | "strict" | "failover" | "passthrough";
  readonly healthPolicy: "only-healthy" | "allow-all";
}

export interface WeightedWaypoint {
  readonly destination: GatewayAddress;
  readonly weight: number;
}

export interface Service {
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  /** Virtual addresses; empty for a headless service. */
  readonly vips: readonly NetworkAddress[];
  readonly cidrVips: readonly { readonly network: NetworkId; readonly range: Cidr }[];
  readonly ports: readonly PortMapping[];
  /** Identities accepted from the endpoints besides their own; entries that do not parse were dropped. */
  readonly subjectAltNames: readonly SpiffeId[];
  readonly waypoint: GatewayAddress | undefined;
  readonly weightedWaypoints: readonly WeightedWaypoint[];
  readonly loadBalancing: LoadBalancing;
  readonly ipFamilies: "automatic" | "ipv4" | "ipv6" | "dual";
  readonly canonical: boolean;
  readonly ingressUseWaypoint: boolean;
  readonly visibility: "public" | "namespace";
}
