/** A workload: something with an address that runs as an identity. Mirrors istio.workload.Workload (ztunnel contract 4.1). */
import type { IpAddress, NetworkAddress, NetworkId } from "./address.ts";
import { type SpiffeId, spiffeId } from "./identity.ts";

/** `<cluster>//Pod/<namespace>/<name>` and its kin (controller contract 2.3). */
export type WorkloadUid = string & { readonly __brand: "WorkloadUid" };
/** `<namespace>/<hostname>`. */
export type ServiceKey = string & { readonly __brand: "ServiceKey" };
/** `<namespace>/<name>`; the xDS resource name of a policy. */
export type PolicyKey = string & { readonly __brand: "PolicyKey" };

export type GatewayDestination =
  | { readonly kind: "hostname"; readonly namespace: string; readonly hostname: string }
  | ({ readonly kind: "address" } & NetworkAddress);

/** Where a waypoint or a network gateway listens. */
export interface GatewayAddress {
  readonly destination: GatewayDestination;
  /** Usually 15008. */
  readonly hbonePort: number;
}

export type AppProtocol = "unknown" | "http11" | "http2" | "grpc" | "tcp" | "tls";

export interface PortMapping {
  readonly servicePort: number;
  /** 0 on a service means: named port, ask the workload. */
  readonly targetPort: number;
  readonly appProtocol: AppProtocol;
}

export interface Locality {
  readonly region: string;
  readonly zone: string;
  readonly subzone: string;
}

export interface ApplicationTunnel {
  readonly protocol: "none" | "proxy";
  /** Undefined: keep the port that was asked for. */
  readonly port: number | undefined;
}

export interface Workload {
  readonly uid: WorkloadUid;
  readonly name: string;
  readonly namespace: string;
  readonly addresses: readonly IpAddress[];
  /** DNS name instead of addresses, "" when there is none. */
  readonly hostname: string;
  readonly network: NetworkId;
  readonly networkMode: "standard" | "host-network";
  readonly networkGateway: GatewayAddress | undefined;
  readonly tunnelProtocol: "none" | "hbone";
  readonly nativeTunnel: boolean;
  readonly applicationTunnel: ApplicationTunnel | undefined;
  readonly trustDomain: string;
  readonly serviceAccount: string;
  readonly waypoint: GatewayAddress | undefined;
  readonly node: string;
  readonly workloadName: string;
  readonly workloadType: "deployment" | "cronjob" | "pod" | "job";
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly clusterId: string;
  readonly locality: Locality | undefined;
  readonly status: "healthy" | "unhealthy";
  /** Services this workload is an endpoint of, with the port mapping of each. */
  readonly services: ReadonlyMap<ServiceKey, readonly PortMapping[]>;
  /** Keys of the selector-scoped policies that apply. */
  readonly authorizationPolicies: readonly PolicyKey[];
  /** Relative weight in load balancing; 0 receives nothing. */
  readonly capacity: number;
}

export function serviceKey(namespace: string, hostname: string): ServiceKey {
  return `${namespace}/${hostname}` as ServiceKey;
}

export function policyKey(namespace: string, name: string): PolicyKey {
  return `${namespace}/${name}` as PolicyKey;
}

export function workloadIdentity(workload: Workload): SpiffeId {
  return spiffeId(workload);
}
