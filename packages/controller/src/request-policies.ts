/**
 * From an AuthorizationPolicy that names targets to what waypoints enforce (controller contract 4.3, 4.7). What cannot be read never widens
 * access: an ALLOW rule that holds it is left out, a DENY rule is kept without it, and so denies more.
 */
import type { AuthorizationPolicyObject, AuthorizationRule, PolicyTargetReference } from "@fairway/kube";
import type { RequestPolicy } from "@fairway/model";
import { messageOf } from "@fairway/runtime";
import { isCore } from "./backends.ts";
import { annotation } from "./labels.ts";
import { readRequestRule } from "./request-conditions.ts";
import { isRecord, unknownFields } from "./unknown-fields.ts";

export interface RequestPolicyOutcome {
  /** `namespace/name` */
  readonly key: string;
  readonly namespace: string;
  /** Keys of `targetKey`. */
  readonly targets: readonly string[];
  readonly policy: RequestPolicy;
  /** What its author should know, in words. */
  readonly problems: readonly string[];
  /** Set when the mesh cannot do what the policy asks for at all. */
  readonly unsupported: string | undefined;
}

const specFields: ReadonlySet<string> = new Set(["selector", "targetRef", "targetRefs", "rules", "action", "provider"]);
const actions: ReadonlyMap<string, RequestPolicy["action"]> = new Map([
  ["ALLOW", "allow"],
  ["DENY", "deny"],
  ["AUDIT", "audit"],
]);

/** Never throws: a policy that cannot be read at all allows nothing where it applies. */
export function convertRequestPolicy(object: AuthorizationPolicyObject, rootNamespace: string): RequestPolicyOutcome {
  const { metadata } = object;
  const namespace = metadata.namespace ?? "";
  const targets = targetKeys(object.spec, namespace, rootNamespace);
  const base = { key: `${namespace}/${metadata.name}`, namespace, targets };
  const named = { namespace, name: metadata.name };
  try {
    return { ...base, ...convert(object, named) };
  } catch (thrown) {
    const policy: RequestPolicy = { ...named, action: "allow", dryRun: false, rules: [] };
    return { ...base, policy, problems: [`the policy cannot be read, and allows nothing until it can: ${messageOf(thrown)}`], unsupported: undefined };
  }
}

function convert(
  { metadata, spec = {} }: AuthorizationPolicyObject,
  named: { namespace: string; name: string },
): Pick<RequestPolicyOutcome, "policy" | "problems" | "unsupported"> {
  const word = spec.action ?? "ALLOW";
  const action = actions.get(word) ?? "deny";
  const unsupported = actions.has(word)
    ? undefined
    : `the ${word} action is not supported; requests that the policy asks about are denied, because nobody can answer for them`;
  const dryRun = metadata.annotations?.[annotation.dryRun]?.toLowerCase() === "true";
  const beside = unknownFields(spec, { path: "spec", known: specFields });
  const readings = (spec.rules ?? []).map((rule: AuthorizationRule | null, index) => readRequestRule(rule ?? {}, named.namespace, `spec.rules[${index}]`));
  const problems = [...beside, ...readings.flatMap(({ unreadable }) => unreadable)];
  const kept = readings.filter(({ unreadable }) => action !== "allow" || unreadable.length === 0).map(({ condition }) => condition);
  const policy: RequestPolicy = { ...named, action, dryRun, rules: closed(spec, action, beside) ?? kept };
  return { policy, problems, unsupported };
}

/** What stands in for the rules when an unknown field beside them may have been their action, or they themselves. */
function closed(
  spec: NonNullable<AuthorizationPolicyObject["spec"]>,
  action: RequestPolicy["action"],
  beside: readonly string[],
): RequestPolicy["rules"] | undefined {
  if (beside.length === 0) return undefined;
  if (action === "allow" && spec.action === undefined) return [];
  return action === "deny" && spec.rules === undefined ? [{ kind: "any" }] : undefined;
}

export interface Targeting {
  readonly targetRef?: PolicyTargetReference;
  readonly targetRefs?: readonly PolicyTargetReference[];
}

/** Nothing is assumed of their shape: definitions that others installed may let anything in. */
export function targetsOf({ targetRef, targetRefs = [] }: Targeting): readonly PolicyTargetReference[] {
  const several: readonly (PolicyTargetReference | undefined)[] = Array.isArray(targetRefs) && targetRefs.length === 0 ? [targetRef] : [targetRefs].flat();
  return several.filter((target): target is PolicyTargetReference => isRecord(target));
}

/** The targets that a waypoint looks for; others are said in the status and concern nobody. */
export function targetKeys(spec: Targeting | undefined, namespace: string, rootNamespace: string): readonly string[] {
  return targetsOf(spec ?? {}).flatMap(({ group, kind, name, namespace: elsewhere = namespace }) => {
    if (elsewhere !== "" && elsewhere !== namespace) return [];
    if (kind === "Service" && isCore(group)) return [serviceTarget(namespace, name)];
    if (kind === "Gateway") return [gatewayTarget(namespace, name)];
    return kind === "GatewayClass" && namespace === rootNamespace ? [classTarget(name)] : [];
  });
}

export function serviceTarget(namespace: string, name: string): string {
  return `Service/${namespace}/${name}`;
}

export function gatewayTarget(namespace: string, name: string): string {
  return `Gateway/${namespace}/${name}`;
}

export function classTarget(name: string): string {
  return `GatewayClass/${name}`;
}
