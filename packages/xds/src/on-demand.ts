/** What of a partial mesh is held for whom: the names that an answer settles, and the resources that nobody's name leads to any more. */
import { type Service, type Snapshot, type SnapshotChange, serviceKey, type Workload } from "@fairway/model";
import { type MeshAddress, serviceAliases, workloadAliases } from "@fairway/protocol";
import { parseAddressName, rangeHolds } from "./address-names.ts";
import type { Demand } from "./demand.ts";
import type { ReceivedResource } from "./subscription.ts";

/** Every name by which an address can be asked for. */
export function namesOf(address: MeshAddress): readonly string[] {
  return address.kind === "workload"
    ? [address.workload.uid, ...workloadAliases(address.workload)]
    : [serviceKey(address.service.namespace, address.service.hostname), ...serviceAliases(address.service)];
}

/** The same for what a snapshot holds under a primary name. */
export function namesHeld(snapshot: Snapshot, name: string): readonly string[] {
  const workload = snapshot.workload(name as Workload["uid"]);
  if (workload !== undefined) return namesOf({ kind: "workload", workload });
  const service = snapshot.service(name as ReturnType<typeof serviceKey>);
  return service === undefined ? [] : namesOf({ kind: "service", service });
}

/** Of `names`, those that are addresses in a range of the service: nothing else in an answer says what they asked for. */
export function namesInRange({ cidrVips }: Service, names: Iterable<string>): readonly string[] {
  if (cidrVips.length === 0) return [];
  const inRange = (name: string): boolean => {
    const address = parseAddressName(name);
    return address !== undefined && cidrVips.some((range) => rangeHolds(range, address));
  };
  return [...names].filter(inRange);
}

/** What may be dropped: no name that is wanted leads to it, it runs on another node, and no local file brought it. */
export function unclaimed(
  snapshot: Snapshot,
  demand: Demand,
  kept: { readonly nodeName: string | undefined; readonly names: ReadonlySet<string> },
): Required<Pick<SnapshotChange, "removedWorkloads" | "removedServices">> {
  const wanted = (names: readonly string[]): boolean => names.some((name) => demand.wants(name) || kept.names.has(name));
  const claimed = new Set<string>();
  const removedServices = [];
  for (const service of snapshot.services()) {
    const key = serviceKey(service.namespace, service.hostname);
    if (wanted(namesOf({ kind: "service", service })) || namesInRange(service, demand.names()).length > 0) claimed.add(key);
    else removedServices.push(key);
  }
  const removedWorkloads = [];
  for (const workload of snapshot.workloads()) {
    const local = kept.nodeName !== undefined && workload.node === kept.nodeName;
    if (local || wanted(namesOf({ kind: "workload", workload })) || [...workload.services.keys()].some((key) => claimed.has(key))) continue;
    removedWorkloads.push(workload.uid);
  }
  return { removedWorkloads, removedServices };
}

/** Tells who waits. What was refused and is still held in an earlier form was answered by that. */
export function settleDemand(
  demand: Demand,
  before: Snapshot,
  response: {
    readonly resources: readonly ReceivedResource[];
    readonly decoded: readonly MeshAddress[];
    readonly removed: readonly string[];
    readonly refused: readonly string[];
  },
): void {
  const { resources, decoded, removed } = response;
  const held = (name: string): readonly string[] => namesHeld(before, name);
  const refused = new Set(response.refused.filter((name) => held(name).length === 0));
  const aliased = (kind: boolean): readonly string[] =>
    resources.flatMap(({ name, aliases }) => (refused.has(name) === kind ? [name, ...(aliases ?? [])] : []));
  const inRange = decoded.flatMap((address) => (address.kind === "service" ? namesInRange(address.service, demand.unanswered()) : []));
  demand.answered({
    removed: [...removed, ...removed.flatMap(held), ...resources.flatMap(({ name }) => held(name))],
    refused: [...refused, ...aliased(true)],
    received: [...aliased(false), ...decoded.flatMap(namesOf), ...response.refused.flatMap(held), ...inRange],
  });
}
