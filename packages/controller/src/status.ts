/** What became of an object, written where its author looks: status conditions (controller contract 2.12, 4.9). Only the leader writes. */
import {
  type AuthorizationPolicyObject,
  applyConditions,
  type Collection,
  type ConditionWish,
  type DestinationRule,
  derive,
  type Fetch,
  type KubeClient,
  type Service as KubeService,
  type PeerAuthentication,
  type RequestAuthentication,
  type ResourceType,
  resources,
  type WithConditions,
} from "@fairway/kube";
import type { Clock, Logger } from "@fairway/runtime";
import type { Inputs } from "./inputs.ts";
import type { Mesh } from "./mesh.ts";
import { hasTargets, type PolicyOutcome } from "./policies.ts";
import { rejectionsOf } from "./refusals.ts";
import type { Rejection } from "./rejections.ts";
import { targetsOf } from "./request-policies.ts";
import { keepRouteStatus } from "./route-status-writer.ts";
import { keepStatusOf } from "./status-queue.ts";
import { type TargetFacts, waypointCondition } from "./target-status.ts";
import { untilAborted } from "./until-aborted.ts";
import type { Binding } from "./waypoints.ts";

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
const authenticationConditions = { fieldManager: "fairway-request-authentication-status", owned: ["WaypointAccepted"] } as const;
/** The reference writes none; ours appears only to say what does not count. */
const destinationRuleConditions = { fieldManager: "fairway-destination-rule-status", owned: ["WaypointAccepted"] } as const;
const withoutTargets: ConditionWish = {
  type: "WaypointAccepted",
  status: "False",
  reason: "UnsupportedValue",
  message: "only waypoints check tokens: name a Service or a Gateway in targetRefs",
};

/** Runs while this replica leads. Everything is looked at once at the start, then what changes. */
export async function writeStatus(options: StatusOptions, signal: AbortSignal): Promise<void> {
  const { inputs, mesh, rejections, rootNamespace } = options;
  await using stack = new AsyncDisposableStack();
  const refusals = rejectionsOf(rejections, mesh.programs.resources);
  const targetFacts = (fetch: Fetch): TargetFacts => ({
    rootNamespace,
    service: (namespace, name) => fetch.get(inputs.services, `${namespace}/${name}`),
    binding: (namespace, name) => fetch.get(mesh.serviceBindings, `${namespace}/${name}`),
    waypoint: (namespace, name) => fetch.get(mesh.waypoints, `${namespace}/${name}`),
  });
  const policies = stack.use(
    derive<AuthorizationPolicyObject, Wishes>(inputs.authorizationPolicies, (object, fetch) => {
      const key = `${object.metadata.namespace ?? ""}/${object.metadata.name}`;
      const { generation } = object.metadata;
      const outcome = fetch.get(mesh.policyOutcomes, key);
      if (outcome !== undefined) return { generation, conditions: [ztunnelCondition(outcome, fetch.get(rejections, key))] };
      const targeted = fetch.get(mesh.enforcement.requestPolicies, key);
      if (targeted === undefined) return undefined;
      const findings = { problems: targeted.problems, unsupported: targeted.unsupported, rejection: refusals.ofPolicy(fetch, key) };
      return { generation, conditions: [waypointCondition(targetsOf(object.spec ?? {}), targeted.namespace, targetFacts(fetch), findings)] };
    }),
  );
  const authentications = stack.use(
    derive<RequestAuthentication, Wishes>(inputs.requestAuthentications, ({ metadata, spec = {} }, fetch) => {
      const key = `${metadata.namespace ?? ""}/${metadata.name}`;
      const targeted = fetch.get(mesh.enforcement.tokenRules, key);
      if (targeted === undefined) return { generation: metadata.generation, conditions: hasTargets({ spec }) ? [] : [withoutTargets] };
      const findings = { problems: targeted.problems, unsupported: undefined, rejection: refusals.ofPolicy(fetch, key) };
      return { generation: metadata.generation, conditions: [waypointCondition(targetsOf(spec), targeted.namespace, targetFacts(fetch), findings)] };
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
  stack.use(keepWritten(options, resources.requestAuthentications, inputs.requestAuthentications, authentications, authenticationConditions));
  const rules = stack.use(
    derive<DestinationRule, Wishes>(inputs.destinationRules, ({ metadata }, fetch) => {
      const condition = fetch.get(mesh.destinationRules, `${metadata.namespace ?? ""}/${metadata.name}`)?.condition;
      return { generation: metadata.generation, conditions: condition === undefined ? [] : [condition] };
    }),
  );
  stack.use(keepWritten(options, resources.destinationRules, inputs.destinationRules, rules, destinationRuleConditions));
  stack.use(keepRouteStatus({ ...options, rejections: refusals }));
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
  return keepStatusOf({
    type,
    objects,
    wishes,
    clock,
    log,
    write: (object, { conditions }) => applyConditions(client, type, object, conditions, { fieldManager, owned, now: new Date(clock.now()) }),
  });
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
