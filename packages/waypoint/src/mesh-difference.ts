/** What changed between two snapshots, so that a thread can follow a mesh that another one holds. Pure. */
import type { Service, ServiceKey, Snapshot, SnapshotChange, Workload, WorkloadUid } from "@fairway/model";
import { serviceKey } from "@fairway/model";

/** Undefined when they are the same. Snapshots share what did not change, so sameness is identity. */
export function meshDifference(before: Snapshot, after: Snapshot): SnapshotChange | undefined {
  if (before === after) return undefined;
  const workloads: Workload[] = [];
  const services: Service[] = [];
  const removedWorkloads: WorkloadUid[] = [];
  const removedServices: ServiceKey[] = [];
  for (const workload of after.workloads()) if (before.workload(workload.uid) !== workload) workloads.push(workload);
  for (const service of after.services()) if (before.service(keyOf(service)) !== service) services.push(service);
  for (const { uid } of before.workloads()) if (after.workload(uid) === undefined) removedWorkloads.push(uid);
  for (const service of before.services()) if (after.service(keyOf(service)) === undefined) removedServices.push(keyOf(service));
  const change = { workloads, services, removedWorkloads, removedServices };
  return Object.values(change).every(({ length }) => length === 0) ? undefined : change;
}

function keyOf({ namespace, hostname }: Service): ServiceKey {
  return serviceKey(namespace, hostname);
}
