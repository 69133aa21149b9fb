/** A snapshot in which some workloads are no endpoints: how a retry is kept from the endpoint that just failed. */
import type { Snapshot, WorkloadUid } from "@fairway/model";

/** `snapshot` itself when nothing is excluded. */
export function withoutWorkloads(snapshot: Snapshot, excluded: ReadonlySet<WorkloadUid>): Snapshot {
  if (excluded.size === 0) return snapshot;
  return {
    workload: (uid) => snapshot.workload(uid),
    workloads: () => snapshot.workloads(),
    service: (key) => snapshot.service(key),
    services: () => snapshot.services(),
    policy: (key) => snapshot.policy(key),
    policies: () => snapshot.policies(),
    workloadByAddress: (network, ip) => snapshot.workloadByAddress(network, ip),
    serviceByAddress: (network, ip, clientNamespace) => snapshot.serviceByAddress(network, ip, clientNamespace),
    servicesAtAddress: (network, ip) => snapshot.servicesAtAddress(network, ip),
    serviceByHostname: (hostname, clientNamespace) => snapshot.serviceByHostname(hostname, clientNamespace),
    servicesNamed: (hostname) => snapshot.servicesNamed(hostname),
    workloadByHostname: (namespace, hostname) => snapshot.workloadByHostname(namespace, hostname),
    workloadByName: (pod, node) => snapshot.workloadByName(pod, node),
    workloadsOnNode: (node) => snapshot.workloadsOnNode(node),
    endpoints: (key) => [...snapshot.endpoints(key)].filter(({ uid }) => !excluded.has(uid)),
    policiesFor: (workload) => snapshot.policiesFor(workload),
  };
}
