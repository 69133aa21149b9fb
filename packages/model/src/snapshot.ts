/** The mesh at one moment. Never mutated; the next snapshot shares every index that did not change. */
import type { IpAddress, NetworkId } from "./address.ts";
import type { SpiffeId } from "./identity.ts";
import type { AuthorizationPolicy } from "./policy.ts";
import type { Service } from "./service.ts";
import type { PolicyKey, ServiceKey, Workload, WorkloadUid } from "./workload.ts";

export interface Snapshot {
  workload(uid: WorkloadUid): Workload | undefined;
  workloads(): Iterable<Workload>;
  service(key: ServiceKey): Service | undefined;
  services(): Iterable<Service>;
  policy(key: PolicyKey): AuthorizationPolicy | undefined;
  policies(): Iterable<AuthorizationPolicy>;
  /** The workload that owns an address; conflicts resolved as in ztunnel contract 5.6. Host-network workloads are never found. */
  workloadByAddress(network: NetworkId, ip: IpAddress): Workload | undefined;
  /** By virtual address, visible to `clientNamespace`, precedence of ztunnel contract 5.4 (exact, then CIDR). */
  serviceByAddress(network: NetworkId, ip: IpAddress, clientNamespace: string): Service | undefined;
  /** Services of any namespace and visibility at a virtual address: those that have it, then those with a range over it. */
  servicesAtAddress(network: NetworkId, ip: IpAddress): Iterable<Service>;
  serviceByHostname(hostname: string, clientNamespace: string): Service | undefined;
  /** Services of any namespace and visibility: those with this hostname, then those with each wildcard over it, the most specific one first. */
  servicesNamed(hostname: string): Iterable<NamedServices>;
  workloadByHostname(namespace: string, hostname: string): Workload | undefined;
  /** The local pod as the node agent describes it, among workloads of `node` (all nodes when undefined). */
  workloadByName(pod: { namespace: string; name: string; serviceAccount: string }, node: string | undefined): Workload | undefined;
  /** Workloads of a node; what certificate prefetch looks at. */
  workloadsOnNode(node: string): Iterable<Workload>;
  /** Endpoints of a service, unhealthy ones included. */
  endpoints(key: ServiceKey): Iterable<Workload>;
  /** Policies that apply to a workload: global, its namespace's, and those it names. `missing` are named but not known (they deny). */
  policiesFor(workload: Pick<Workload, "namespace" | "authorizationPolicies">): { policies: readonly AuthorizationPolicy[]; missing: readonly PolicyKey[] };
}

/** Services under one hostname; it may be a wildcard (`*.example.com`). */
export interface NamedServices {
  readonly hostname: string;
  readonly services: Iterable<Service>;
}

/** One batch of changes, applied as a whole. Removals are applied before upserts. */
export interface SnapshotChange {
  readonly workloads?: readonly Workload[];
  readonly services?: readonly Service[];
  readonly policies?: readonly AuthorizationPolicy[];
  readonly removedWorkloads?: readonly WorkloadUid[];
  readonly removedServices?: readonly ServiceKey[];
  readonly removedPolicies?: readonly PolicyKey[];
}

/** Who is at one end of a connection, for logs and metrics. */
export interface Party {
  readonly workload: Workload | undefined;
  readonly identity: SpiffeId | undefined;
}
