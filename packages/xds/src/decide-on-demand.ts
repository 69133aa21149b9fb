/**
 * Decisions where only what was asked for is held: a decision runs, what it looked at is asked for, and it runs again until it looks at
 * nothing new. A waypoint, or a gateway before it, is found out about in this way, without a word here about what leads to what.
 */
import { type IpAddress, type NetworkId, type ServiceKey, type Snapshot, serviceKey } from "@fairway/model";
import { MeshError, type Watch } from "@fairway/runtime";
import type { Demand } from "./demand.ts";
import type { DecideOptions, MeshChange } from "./mesh-source.ts";

/** The longest honest way is a destination, its waypoint, the gateway before that, and the service of the gateway. */
const maxRounds = 8;

/** See `MeshView.decide`. Throws XDS_DEMAND_*. */
export async function decideOnDemand<T>(
  { changes, demand }: { readonly changes: Watch<MeshChange>; readonly demand: Demand },
  decision: (snapshot: Snapshot) => T,
  { signal, labels = false }: DecideOptions,
): Promise<T> {
  for (let round = 0; round < maxRounds; round++) {
    signal.throwIfAborted();
    const looked = new Set<string>();
    const result = decision(recording(changes.current.snapshot, looked));
    // No turn passes between the run and the answer: it is the latest state that was looked at.
    if (demand.use([...looked]) || labels) return result;
    await demand.fetch([...looked], { signal });
  }
  throw new MeshError("XDS_DEMAND_UNSETTLED", `a decision looked at something new ${maxRounds} times; do waypoints or gateways lead to each other?`);
}

/** Writes down under which names the control plane knows what is looked at. Uids are not looked for: whoever has one found it by a name. */
function recording(snapshot: Snapshot, looked: Set<string>): Snapshot {
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
    serviceByHostname(hostname, clientNamespace) {
      for (const namespace of namespacesOf(hostname, clientNamespace)) key(serviceKey(namespace, hostname));
      return snapshot.serviceByHostname(hostname, clientNamespace);
    },
    workloadByHostname(namespace, hostname) {
      key(serviceKey(namespace, hostname));
      return snapshot.workloadByHostname(namespace, hostname);
    },
    workloadByName: (pod, node) => snapshot.workloadByName(pod, node),
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
