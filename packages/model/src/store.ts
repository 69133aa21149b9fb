/** From one snapshot to the next. A change costs what it changes, however large the mesh is; everything else is shared. */
import type { IpAddress, NetworkId } from "./address.ts";
import type { AuthorizationPolicy } from "./policy.ts";
import { type ApplicablePolicies, PolicyIndex, type PolicySubject } from "./policy-index.ts";
import type { Service } from "./service.ts";
import { ServiceIndex } from "./service-index.ts";
import type { NamedServices, Snapshot, SnapshotChange } from "./snapshot.ts";
import type { PolicyKey, ServiceKey, Workload, WorkloadUid } from "./workload.ts";
import { WorkloadIndex } from "./workload-index.ts";

class MeshSnapshot implements Snapshot {
  readonly #workloads: WorkloadIndex;
  readonly #services: ServiceIndex;
  readonly #policies: PolicyIndex;

  constructor(workloads: WorkloadIndex, services: ServiceIndex, policies: PolicyIndex) {
    this.#workloads = workloads;
    this.#services = services;
    this.#policies = policies;
  }

  workload(uid: WorkloadUid): Workload | undefined {
    return this.#workloads.get(uid);
  }

  workloads(): Iterable<Workload> {
    return this.#workloads.all();
  }

  service(key: ServiceKey): Service | undefined {
    return this.#services.get(key);
  }

  services(): Iterable<Service> {
    return this.#services.all();
  }

  policy(key: PolicyKey): AuthorizationPolicy | undefined {
    return this.#policies.get(key);
  }

  policies(): Iterable<AuthorizationPolicy> {
    return this.#policies.all();
  }

  workloadByAddress(network: NetworkId, ip: IpAddress): Workload | undefined {
    return this.#workloads.atAddress(network, ip);
  }

  serviceByAddress(network: NetworkId, ip: IpAddress, clientNamespace: string): Service | undefined {
    return this.#services.atAddress(network, ip, clientNamespace);
  }

  servicesAtAddress(network: NetworkId, ip: IpAddress): Iterable<Service> {
    return this.#services.allAtAddress(network, ip);
  }

  serviceByHostname(hostname: string, clientNamespace: string): Service | undefined {
    return this.#services.withHostname(hostname, clientNamespace);
  }

  servicesNamed(hostname: string): Iterable<NamedServices> {
    return this.#services.named(hostname);
  }

  workloadByHostname(namespace: string, hostname: string): Workload | undefined {
    return this.#workloads.withHostname(namespace, hostname);
  }

  workloadByName(pod: { namespace: string; name: string; serviceAccount: string }, node: string | undefined): Workload | undefined {
    return this.#workloads.withName(pod, node);
  }

  workloadsOnNode(node: string): Iterable<Workload> {
    return this.#workloads.onNode(node);
  }

  endpoints(key: ServiceKey): Iterable<Workload> {
    return this.#workloads.endpointsOf(key);
  }

  policiesFor(workload: PolicySubject): ApplicablePolicies {
    return this.#policies.appliesTo(workload);
  }

  after(change: SnapshotChange): MeshSnapshot {
    return new MeshSnapshot(
      this.#workloads.apply(change.removedWorkloads ?? [], change.workloads ?? []),
      this.#services.apply(change.removedServices ?? [], change.services ?? []),
      this.#policies.apply(change.removedPolicies ?? [], change.policies ?? []),
    );
  }
}

const empty = new MeshSnapshot(WorkloadIndex.empty, ServiceIndex.empty, PolicyIndex.empty);

/** A mesh in which nothing is known yet. */
export const emptySnapshot: Snapshot = empty;

/**
 * The snapshot after one batch: removals first, so that a resource removed and sent again in one response stays. Values that come twice
 * in a batch: the last one stays. A snapshot of another make is copied first.
 */
export function applyChange(snapshot: Snapshot, change: SnapshotChange): Snapshot {
  return (snapshot instanceof MeshSnapshot ? snapshot : copyOf(snapshot)).after(change);
}

function copyOf(snapshot: Snapshot): MeshSnapshot {
  return empty.after({ workloads: [...snapshot.workloads()], services: [...snapshot.services()], policies: [...snapshot.policies()] });
}
