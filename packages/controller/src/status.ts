/** What became of an object, written where its author looks: status conditions (controller contract 2.12, 4.9). Only the leader writes. */
import {
  type AuthorizationPolicyObject,
  applyConditions,
  type Collection,
  type ConditionWish,
  derive,
  type KubeClient,
  type Service as KubeService,
  type PeerAuthentication,
  type ResourceType,
  resources,
  type WithConditions,
  WorkQueue,
} from "@fairway/kube";
import type { Clock, Logger } from "@fairway/runtime";
import type { Inputs } from "./inputs.ts";
import type { Mesh } from "./mesh.ts";
import { hasTargets, type PolicyOutcome, unreadableIn } from "./policies.ts";
import type { Rejection } from "./rejections.ts";
import { listProblems } from "./unknown-fields.ts";
import { untilAborted } from "./until-aborted.ts";
import type { Binding, Waypoint } from "./waypoints.ts";

export interface StatusOptions {
  readonly client: KubeClient;
  readonly inputs: Inputs;
  readonly mesh: Mesh;
  readonly rejections: Collection<Rejection>;
  readonly rootNamespace: string;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Conditions and the generation they speak about: a new generation is a change even when the words stay. */
interface Wishes {
  readonly generation: number | undefined;
  readonly conditions: readonly ConditionWish[];
}

const policyConditions = { fieldManager: "fairway-policy-status", owned: ["ZtunnelAccepted", "WaypointAccepted"] } as const;
/** The reference writes none; ours appears only to say what cannot be read. */
const peerConditions = { fieldManager: "fairway-peer-authentication-status", owned: ["ZtunnelAccepted"] } as const;
const serviceConditions = { fieldManager: "fairway-service-status", owned: ["istio.io/WaypointBound"] } as const;
const waypointClass = "istio-waypoint";

/** Runs while this replica leads. Everything is looked at once at the start, then what changes. */
export async function writeStatus(options: StatusOptions, signal: AbortSignal): Promise<void> {
  const { inputs, mesh, rejections, rootNamespace } = options;
  await using stack = new AsyncDisposableStack();
  const policies = stack.use(
    derive<AuthorizationPolicyObject, Wishes>(inputs.authorizationPolicies, (object, fetch) => {
      const key = `${object.metadata.namespace ?? ""}/${object.metadata.name}`;
      const { generation } = object.metadata;
      const outcome = fetch.get(mesh.policyOutcomes, key);
      if (outcome !== undefined) return { generation, conditions: [ztunnelCondition(outcome, fetch.get(rejections, key))] };
      if (!hasTargets(object) || fetch.get(mesh.targetedPolicies, key) === undefined) return undefined;
      const condition = waypointCondition(object, {
        rootNamespace,
        service: (namespace, name) => fetch.get(inputs.services, `${namespace}/${name}`),
        binding: (namespace, name) => fetch.get(mesh.serviceBindings, `${namespace}/${name}`),
        waypoint: (namespace, name) => fetch.get(mesh.waypoints, `${namespace}/${name}`),
      });
      return { generation, conditions: [condition] };
    }),
  );
  const services = stack.use(
    derive<KubeService, Wishes>(inputs.services, ({ metadata }, fetch) => {
      const condition = boundCondition(fetch.get(mesh.serviceBindings, `${metadata.namespace ?? ""}/${metadata.name}`));
      return { generation: metadata.generation, conditions: condition === undefined ? [] : [condition] };
    }),
  );
  stack.use(keepWritten(options, resources.authorizationPolicies, inputs.authorizationPolicies, policies, policyConditions));
  const peers = stack.use(
    derive<PeerAuthentication, Wishes>(inputs.peerAuthentications, ({ metadata }, fetch) => {
      const complaint = fetch.get(mesh.peerAuthenticationComplaints, `${metadata.namespace ?? ""}/${metadata.name}`);
      return { generation: metadata.generation, conditions: complaint === undefined ? [] : [complaint] };
    }),
  );
  stack.use(keepWritten(options, resources.peerAuthentications, inputs.peerAuthentications, peers, peerConditions));
  stack.use(keepWritten(options, resources.services, inputs.services, services, serviceConditions));
  await untilAborted(new Promise<void>(() => undefined), signal);
}

/** One writer per kind; what it writes is compared with what is there, so that nothing is written twice. */
function keepWritten<T extends WithConditions>(
  { client, clock, log }: StatusOptions,
  type: ResourceType<T>,
  objects: Collection<T>,
  wishes: Collection<Wishes>,
  { fieldManager, owned }: { readonly fieldManager: string; readonly owned: readonly string[] },
): AsyncDisposable {
  const queue = new WorkQueue({
    name: `status of ${type.plural}`,
    log,
    clock,
    handle: async (key) => {
      const object = objects.get(key);
      const wished = wishes.get(key);
      if (object === undefined || wished === undefined) return;
      await applyConditions(client, type, object, wished.conditions, { fieldManager, owned, now: new Date(clock.now()) });
    },
  });
  const subscription = wishes.subscribe((events) => {
    for (const { type: what, key } of events) if (what !== "deleted") queue.add(key);
  });
  for (const [key] of wishes.entries()) queue.add(key);
  return {
    [Symbol.asyncDispose]: async () => {
      subscription[Symbol.dispose]();
      await queue[Symbol.asyncDispose]();
    },
  };
}

/** What a ztunnel says counts for more than what we expected it to say. */
export function ztunnelCondition({ condition }: PolicyOutcome, rejection: Rejection | undefined): ConditionWish {
  if (rejection === undefined) return condition;
  return { type: condition.type, status: "False", reason: "Rejected", message: `rejected by ${rejection.proxies} ztunnel(s): ${rejection.message}` };
}

/** `istio.io/WaypointBound`; undefined when no waypoint is asked for. */
export function boundCondition(binding: Binding | undefined): ConditionWish | undefined {
  if (binding === undefined || binding.kind === "none") return undefined;
  const type = "istio.io/WaypointBound";
  const named = `${binding.waypoint.namespace}/${binding.waypoint.name}`;
  if (binding.kind === "rejected") return { type, status: "False", reason: binding.reason, message: binding.message };
  if (binding.ready) return { type, status: "True", reason: "WaypointAccepted", message: `Successfully attached to waypoint ${named}` };
  const message = `waypoint ${named} is missing or not ready; traffic that needs it is denied until it is`;
  return { type, status: "False", reason: "WaypointIsNotReady", message };
}

export interface TargetFacts {
  readonly rootNamespace: string;
  service(namespace: string, name: string): KubeService | undefined;
  binding(namespace: string, name: string): Binding | undefined;
  waypoint(namespace: string, name: string): Waypoint | undefined;
}

/** `WaypointAccepted` of a policy with targets (controller contract 4.3, 4.9). */
export function waypointCondition({ metadata, spec = {} }: AuthorizationPolicyObject, facts: TargetFacts): ConditionWish {
  const namespace = metadata.namespace ?? "";
  const unreadable = unreadableIn({ metadata, spec });
  if (unreadable.length > 0) {
    return { type: "WaypointAccepted", status: "False", reason: "Invalid", message: `fields or values that cannot be read: ${listProblems(unreadable)}` };
  }
  const targets = spec.targetRefs !== undefined && spec.targetRefs.length > 0 ? spec.targetRefs : spec.targetRef === undefined ? [] : [spec.targetRef];
  const outcomes = targets.map((target) => targetOutcome(target, namespace, facts));
  const failed = outcomes.filter(({ bound }) => !bound);
  const message = outcomes.map((outcome) => outcome.message).join("; ");
  const type = "WaypointAccepted";
  const [first] = failed;
  if (first === undefined) return { type, status: "True", reason: "Accepted", message };
  return failed.length < outcomes.length
    ? { type, status: "True", reason: "PartiallyInvalid", message }
    : { type, status: "False", reason: first.reason, message };
}

interface TargetOutcome {
  readonly bound: boolean;
  readonly reason: string;
  readonly message: string;
}

function targetOutcome(
  { kind, group = "", name, namespace: targetNamespace }: { kind: string; group?: string; name: string; namespace?: string },
  namespace: string,
  facts: TargetFacts,
): TargetOutcome {
  const bound = (to: string): TargetOutcome => ({ bound: true, reason: "Accepted", message: `bound to ${to}` });
  const failure = (reason: string, message: string): TargetOutcome => ({ bound: false, reason, message });
  const named = `${kind} ${namespace}/${name}`;
  if (targetNamespace !== undefined && targetNamespace !== "" && targetNamespace !== namespace) {
    return failure("Invalid", `targets in another namespace (${targetNamespace}) are not supported`);
  }
  if (kind === "Service" && (group === "" || group === "core")) {
    if (facts.service(namespace, name) === undefined) return failure("TargetNotFound", `${named} was not found`);
    const binding = facts.binding(namespace, name);
    return binding?.kind === "bound"
      ? bound(`${binding.waypoint.namespace}/${binding.waypoint.name}`)
      : failure("AncestorNotBound", `Service ${name} is not bound to a waypoint`);
  }
  if (kind === "Gateway")
    return facts.waypoint(namespace, name) === undefined ? failure("TargetNotFound", `${named} was not found`) : bound(`${namespace}/${name}`);
  if (kind === "GatewayClass") {
    const valid = namespace === facts.rootNamespace && name === waypointClass;
    return valid ? bound(name) : failure("Invalid", `only the GatewayClass ${waypointClass} can be targeted, and only from ${facts.rootNamespace}`);
  }
  return failure("Invalid", `targets of kind ${kind} are not supported`);
}
