/** From received policies and addresses to the next snapshot. Every resource for itself: a bad one is named and harms no other. */
import { policyKey, type Service, type ServiceKey, type Snapshot, type SnapshotChange, serviceKey, type Workload, type WorkloadUid } from "@fairway/model";
import { addressTypeUrl, authorizationTypeUrl, decodeAddress, decodeAuthorization } from "@fairway/protocol";
import { messageOf, type Watch } from "@fairway/runtime";
import type { MeshChange } from "./mesh-source.ts";
import type { ReceivedResource, ResourceSink } from "./subscription.ts";

/** Sets the next snapshot. */
export type Commit = (change: SnapshotChange, touched: Omit<MeshChange, "snapshot">) => void;

export function policySink(changes: Watch<MeshChange>, commit: Commit): ResourceSink {
  return {
    typeUrl: authorizationTypeUrl,
    apply(resources, removed) {
      const rejected = new Map<string, string>();
      const policies = decodeEach(resources, rejected, (name, body) => {
        const policy = decodeAuthorization(body);
        return named(policy, name, policyKey(policy.namespace, policy.name));
      });
      const { snapshot } = changes.current;
      const removedPolicies = removed.map(toPolicyKey).filter((key) => snapshot.policy(key) !== undefined);
      if (policies.length > 0 || removedPolicies.length > 0) commit({ policies, removedPolicies }, { policiesChanged: true, workloadsChanged: false });
      return rejected;
    },
  };
}

export function addressSink(changes: Watch<MeshChange>, commit: Commit): ResourceSink {
  return {
    typeUrl: addressTypeUrl,
    apply(resources, removed) {
      const rejected = new Map<string, string>();
      const workloads: Workload[] = [];
      const services: Service[] = [];
      decodeEach(resources, rejected, (name, body) => {
        const address = decodeAddress(body);
        if (address.kind === "workload") workloads.push(named(address.workload, name, address.workload.uid));
        else services.push(named(address.service, name, serviceKey(address.service.namespace, address.service.hostname)));
        return address;
      });
      const change = { workloads, services, ...removedAddresses(changes.current.snapshot, removed) };
      if (Object.values(change).some(({ length }) => length > 0)) commit(change, { policiesChanged: false, workloadsChanged: true });
      return rejected;
    },
  };
}

/** Every resource for itself: one that cannot be decoded is named with the reason and does not harm the others. */
function decodeEach<T>(resources: readonly ReceivedResource[], rejected: Map<string, string>, decode: (name: string, body: Uint8Array) => T): T[] {
  const decoded: T[] = [];
  for (const { name, body } of resources) {
    try {
      decoded.push(decode(name, body));
    } catch (thrown) {
      rejected.set(name, messageOf(thrown));
    }
  }
  return decoded;
}

class WrongNameError extends Error {}

/** A resource whose content has another name could never be removed again. */
function named<T>(value: T, name: string, own: string): T {
  if (own !== name) throw new WrongNameError(`the resource calls itself ${JSON.stringify(own.slice(0, 200))}`);
  return value;
}

/** A removed address is a workload's uid or a service's key; only those that are known count. */
function removedAddresses(snapshot: Snapshot, removed: readonly string[]): { removedWorkloads: WorkloadUid[]; removedServices: ServiceKey[] } {
  return {
    removedWorkloads: removed.map((name) => name as WorkloadUid).filter((uid) => snapshot.workload(uid) !== undefined),
    removedServices: removed.map((name) => name as ServiceKey).filter((key) => snapshot.service(key) !== undefined),
  };
}

function toPolicyKey(name: string): ReturnType<typeof policyKey> {
  const at = name.indexOf("/");
  return policyKey(name.slice(0, Math.max(0, at)), name.slice(at + 1));
}
