/**
 * Decisions where only what was asked for is held: a decision runs, what it looked at is asked for, and it runs again until it looks at
 * nothing new. A waypoint, or a gateway before it, is found out about in this way, without a word here about what leads to what.
 */
import { emptySnapshot, type IpAddress, type NetworkId, type ServiceKey, type Snapshot, serviceKey } from "@fairway/model";
import { errorCode, MeshError, type Watch } from "@fairway/runtime";
import type { Demand } from "./demand.ts";
import type { DecideOptions, MeshChange } from "./mesh-source.ts";

/** The longest honest way is a destination, its waypoint, the gateway before that, and the service of the gateway. */
const maxRounds = 8;

/** See `MeshView.decide`. Throws XDS_DEMAND_*. */
export async function decideOnDemand<T>(
  { changes, demand, clusterId }: { readonly changes: Watch<MeshChange>; readonly demand: Demand; readonly clusterId: string },
  decision: (snapshot: Snapshot) => T,
  { signal, labels = false }: DecideOptions,
): Promise<T> {
  for (let round = 0; round < maxRounds; round++) {
    signal.throwIfAborted();
    const looked = new Set<string>();
    const pods = new Set<string>();
    const result = decision(recording(changes.current.snapshot, { looked, pods, clusterId }));
    demand.pin([...pods]);
    // No turn passes between the run and the answer: it is the latest state that was looked at.
    const names = [...looked, ...pods];
    if (labels) {
      askQuietly(demand, names);
      return result;
    }
    if (demand.use(names)) return result;
    await demand.fetch(names, { signal });
  }
  throw new MeshError("XDS_DEMAND_UNSETTLED", `a decision looked at something new ${maxRounds} times; do waypoints or gateways lead to each other?`);
}

/** Nobody is refused for want of a name in a log. */
function askQuietly(demand: Demand, names: readonly string[]): void {
  try {
    demand.use(names);
  } catch (thrown) {
    if (errorCode(thrown) !== "XDS_DEMAND_OVERLOADED") throw thrown;
  }
}

/** The names under which the control plane knows what `look` looks at. */
export function namesLookedAt(look: (snapshot: Snapshot) => void, clusterId: string): ReadonlySet<string> {
  const [looked, pods] = [new Set<string>(), new Set<string>()];
  look(recording(emptySnapshot, { looked, pods, clusterId }));
  return new Set([...looked, ...pods]);
}

/** As what the mesh may know a workload that this process serves: a pod, or a machine outside the cluster (controller contract 2.3). */
function ownUids(clusterId: string, { namespace, name }: { readonly namespace: string; readonly name: string }): readonly string[] {
  return [`${clusterId}//Pod/${namespace}/${name}`, `${clusterId}/networking.istio.io/WorkloadEntry/${namespace}/${name}`];
}

interface Looked {
  readonly looked: Set<string>;
  /** Uids of pods that were looked for by name: only those that this process serves are. */
  readonly pods: Set<string>;
  readonly clusterId: string;
}

/** Writes down what is looked at. Uids are not looked for: whoever has one found it by a name. */
function recording(snapshot: Snapshot, { looked, pods, clusterId }: Looked): Snapshot {
  const address = (network: NetworkId, ip: IpAddress): void => void looked.add(`${network}/${ip}`);
  const key = (name: ServiceKey): void => void looked.add(name);
  return {
    workload: (uid) => snapshot.workload(uid),
    workloads: () => snapshot.workloads(),
    service(name) {
      key(name);
      return snapshot.service(name);
    },
    services: () => snapshot.services(),
    policy: (name) => snapshot.policy(name),
    policies: () => snapshot.policies(),
    workloadByAddress(network, ip) {
      address(network, ip);
      return snapshot.workloadByAddress(network, ip);
    },
    serviceByAddress(network, ip, clientNamespace) {
      address(network, ip);
      return snapshot.serviceByAddress(network, ip, clientNamespace);
    },
    servicesAtAddress(network, ip) {
      address(network, ip);
      return snapshot.servicesAtAddress(network, ip);
    },
    serviceByHostname(hostname, clientNamespace) {
      for (const namespace of namespacesOf(hostname, clientNamespace)) key(serviceKey(namespace, hostname));
      return snapshot.serviceByHostname(hostname, clientNamespace);
    },
    // The DNS proxy alone searches without a namespace, and excludes discovery on demand (ztunnel contract 2.2).
    servicesNamed: (hostname) => snapshot.servicesNamed(hostname),
    workloadByHostname(namespace, hostname) {
      key(serviceKey(namespace, hostname));
      return snapshot.workloadByHostname(namespace, hostname);
    },
    workloadByName(pod, node) {
      for (const uid of ownUids(clusterId, pod)) pods.add(uid);
      return snapshot.workloadByName(pod, node);
    },
    workloadsOnNode: (node) => snapshot.workloadsOnNode(node),
    endpoints(name) {
      key(name);
      return snapshot.endpoints(name);
    },
    policiesFor: (workload) => snapshot.policiesFor(workload),
  };
}

/** A hostname alone is no name to ask for. Its namespace is the client's own, or stands in it: `<service>.<namespace>.svc.<domain>`. */
function namespacesOf(hostname: string, clientNamespace: string): ReadonlySet<string> {
  const [, namespace, svc] = hostname.split(".");
  return new Set(svc === "svc" && namespace ? [clientNamespace, namespace] : [clientNamespace]);
}
