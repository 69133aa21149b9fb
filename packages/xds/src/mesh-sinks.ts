/** From received policies and addresses to the next snapshot. Every resource for itself: a bad one is named and harms no other. */
import {
  type AuthorizationPolicy,
  type PolicyKey,
  policyKey,
  type Service,
  type ServiceKey,
  type Snapshot,
  type SnapshotChange,
  serviceKey,
  standInFor,
  type Workload,
  type WorkloadUid,
} from "@fairway/model";
import { addressTypeUrl, authorizationTypeUrl, decodeAddress, decodeAuthorization, salvageAuthorization } from "@fairway/protocol";
import { messageOf, type Watch } from "@fairway/runtime";
import type { Demand } from "./demand.ts";
import type { MeshChange } from "./mesh-source.ts";
import { settleDemand } from "./on-demand.ts";
import type { ReceivedResource, ResourceSink } from "./subscription.ts";

/** Sets the next snapshot. */
export type Commit = (change: SnapshotChange, touched: Omit<MeshChange, "snapshot">) => void;

export function policySink(changes: Watch<MeshChange>, commit: Commit, { rootNamespace }: { rootNamespace: string }): ResourceSink {
  return {
    typeUrl: authorizationTypeUrl,
    apply(resources, removed, unreadable) {
      const rejected = new Map<string, string>();
      const policies = decodeEach(resources, rejected, ({ name, body }) => {
        const policy = decodeAuthorization(body);
        return named(policy, name, policyKey(policy.namespace, policy.name));
      });
      const { snapshot } = changes.current;
      const removedPolicies = removed.map(toPolicyKey).filter((key) => snapshot.policy(key) !== undefined);
      const refused = new Map(unreadable.map((name): [string, Uint8Array | undefined] => [name, undefined]));
      for (const { name, body } of resources) if (rejected.has(name)) refused.set(name, body);
      const gone = new Set(removed);
      const held = (name: string): boolean => {
        const policy = gone.has(name) ? undefined : snapshot.policy(toPolicyKey(name));
        return policy !== undefined && policy.refused !== true;
      };
      // A policy that was understood before stays in force as it was.
      const standIns = [...refused].flatMap(([name, body]) => (held(name) ? [] : (standIn(name, body, rootNamespace) ?? [])));
      if (policies.length + standIns.length + removedPolicies.length > 0) {
        commit({ policies: [...policies, ...standIns], removedPolicies }, { policiesChanged: true, workloadsChanged: false });
      }
      return rejected;
    },
  };
}

function standIn(name: string, body: Uint8Array | undefined, rootNamespace: string): AuthorizationPolicy | undefined {
  const { scope, action, dryRun = false } = body === undefined ? {} : salvageAuthorization(body);
  return standInFor({ ...partsOf(name), scope, action, dryRun }, rootNamespace);
}

export function addressSink(changes: Watch<MeshChange>, commit: Commit, demand?: Demand): ResourceSink {
  return {
    typeUrl: addressTypeUrl,
    apply(resources, removed, unreadable) {
      const before = changes.current.snapshot;
      const rejected = new Map<string, string>();
      const workloads: Workload[] = [];
      const services: Service[] = [];
      const decoded = decodeEach(resources, rejected, ({ name, body }) => {
        const address = decodeAddress(body, name);
        if (address.kind === "workload") workloads.push(named(address.workload, name, address.workload.uid));
        else services.push(named(address.service, name, keyOf(address.service)));
        return address;
      });
      const change = { workloads, services, ...removedAddresses(before, removed) };
      if (Object.values(change).some(({ length }) => length > 0)) commit(change, { policiesChanged: false, workloadsChanged: true });
      if (demand !== undefined) settleDemand(demand, before, { resources, decoded, removed, refused: [...rejected.keys(), ...unreadable] });
      return rejected;
    },
  };
}

/** Every resource for itself: one that cannot be decoded is named with the reason and does not harm the others. */
function decodeEach<T>(resources: readonly ReceivedResource[], rejected: Map<string, string>, decode: (resource: ReceivedResource) => T): T[] {
  const decoded: T[] = [];
  for (const resource of resources) {
    try {
      decoded.push(decode(resource));
    } catch (thrown) {
      rejected.set(resource.name, messageOf(thrown));
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

function keyOf({ namespace, hostname }: Service): ServiceKey {
  return serviceKey(namespace, hostname);
}

function toPolicyKey(name: string): PolicyKey {
  const parts = partsOf(name);
  return policyKey(parts.namespace, parts.name);
}

function partsOf(name: string): { readonly namespace: string; readonly name: string } {
  const at = name.indexOf("/");
  return { namespace: name.slice(0, Math.max(0, at)), name: name.slice(at + 1) };
}
