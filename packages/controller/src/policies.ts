/**
 * From an AuthorizationPolicy to what ztunnel enforces (controller contract 4.3, 4.4), and to what its author is told. What cannot be
 * enforced never widens access: an ALLOW rule that says more than L4 can check is left out, a DENY rule loses only the part that
 * cannot be checked. A field that nobody knows may be the misspelt one that was to narrow the policy, and is treated so.
 * One bad value never affects other rules or other policies.
 */
import type { AuthorizationPolicyObject, AuthorizationRule, ConditionWish } from "@fairway/kube";
import { type AuthorizationPolicy, type PolicyClause, type PolicyKey, type PolicyRule, policyKey } from "@fairway/model";
import { messageOf } from "@fairway/runtime";
import { annotation, type Labels } from "./labels.ts";
import { isEmptyMatch, type RuleReading, readRule } from "./policy-match.ts";
import type { Targeting } from "./request-policies.ts";
import type { MeshSettings } from "./settings.ts";
import { listProblems, unknownFields } from "./unknown-fields.ts";

export interface PolicyOutcome {
  readonly key: PolicyKey;
  readonly namespace: string;
  /** Set when only some workloads are concerned. */
  readonly selector: Labels | undefined;
  /** What is sent to ztunnels; undefined when a waypoint enforces it, or nobody can. */
  readonly policy: AuthorizationPolicy | undefined;
  readonly condition: ConditionWish;
}

type Action = AuthorizationPolicy["action"];

const conditionType = "ZtunnelAccepted";
const specFields: ReadonlySet<string> = new Set(["selector", "targetRef", "targetRefs", "rules", "action", "provider"]);
const selectorFields: ReadonlySet<string> = new Set(["matchLabels"]);
const actions: ReadonlyMap<string, Action> = new Map([
  ["ALLOW", "allow"],
  ["DENY", "deny"],
]);

/** Whether a waypoint enforces the policy: it names its targets. Such a policy is never sent to ztunnels. */
export function hasTargets({ spec }: { readonly spec?: Targeting }): boolean {
  const several = spec?.targetRefs ?? [];
  return spec?.targetRef !== undefined || !Array.isArray(several) || several.length > 0;
}

function rulePath(index: number): string {
  return `spec.rules[${index}]`;
}

function unknownBesideRules(spec: AuthorizationPolicyObject["spec"]): readonly string[] {
  return [...unknownFields(spec, { path: "spec", known: specFields }), ...unknownFields(spec?.selector, { path: "spec.selector", known: selectorFields })];
}

/** For policies without targets. Never throws: a policy that cannot be read at all allows nothing where it applies. */
export function convertPolicy(object: AuthorizationPolicyObject, settings: MeshSettings): PolicyOutcome {
  try {
    return convert(object, settings);
  } catch (thrown) {
    const { metadata } = object;
    const namespace = metadata.namespace ?? "";
    const scope = namespace === settings.rootNamespace ? "global" : "namespace";
    return {
      key: policyKey(namespace, metadata.name),
      namespace,
      selector: undefined,
      policy: { name: metadata.name, namespace, scope, action: "allow", rules: [], dryRun: false },
      condition: wish("False", "Invalid", `the policy cannot be read, and allows nothing until it can: ${messageOf(thrown)}`),
    };
  }
}

function convert(object: AuthorizationPolicyObject, settings: MeshSettings): PolicyOutcome {
  const { metadata, spec = {} } = object;
  const namespace = metadata.namespace ?? "";
  const selector = Object.keys(spec.selector?.matchLabels ?? {}).length > 0 ? spec.selector?.matchLabels : undefined;
  const base = { key: policyKey(namespace, metadata.name), namespace, selector };
  const word = spec.action ?? "ALLOW";
  const action = actions.get(word);
  if (action === undefined) return { ...base, policy: undefined, condition: wish("False", "UnsupportedValue", `ztunnel does not support the ${word} action`) };
  const dryRun = metadata.annotations?.[annotation.dryRun]?.toLowerCase() === "true";
  if (dryRun && !settings.dryRunPolicies) {
    return {
      ...base,
      policy: undefined,
      condition: wish("False", "UnsupportedValue", "dry-run policies are not enabled (AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY)"),
    };
  }
  const readings = (spec.rules ?? []).map((rule: AuthorizationRule | null, index) => readRule(rule ?? {}, namespace, rulePath(index)));
  const unknown = unknownBesideRules(spec);
  const closed = unknown.length > 0 ? closedRules(spec, action) : undefined;
  const policy: AuthorizationPolicy = {
    name: metadata.name,
    namespace,
    scope: selector !== undefined ? "workload-selector" : namespace === settings.rootNamespace ? "global" : "namespace",
    action,
    rules: closed?.rules ?? readings.flatMap((reading) => enforceable(reading, action) ?? []),
    dryRun,
  };
  return { ...base, policy, condition: explain(readings, { action, unknown, closed: closed?.because }) };
}

interface ClosedRules {
  readonly rules: readonly PolicyRule[];
  readonly because: string;
}

/**
 * What a policy with unknown fields beside its rules does instead of its rules, when the unknown may be what was to limit or to state them;
 * undefined when it can safely apply as it reads. An ALLOW that lost its selector or its action would let callers past other policies.
 */
function closedRules(spec: NonNullable<AuthorizationPolicyObject["spec"]>, action: Action): ClosedRules | undefined {
  if (action === "deny") {
    return spec.rules === undefined ? { rules: [{ clauses: [] }], because: "no rules can be read, so it denies everything where it applies" } : undefined;
  }
  const labels = spec.selector?.matchLabels ?? {};
  const selected = Object.keys(labels).length > 0 && unknownFields(spec.selector, { path: "", known: selectorFields }).length === 0;
  if (!selected) return { rules: [], because: "it may apply to more than was meant, so it allows nothing" };
  return spec.action === undefined ? { rules: [], because: "it does not say that it is meant to ALLOW, so it allows nothing" } : undefined;
}

/** The rule as it can be enforced without letting in more than was written; undefined when it must be left out. */
function enforceable({ clauses, http, unreadable, emptied }: RuleReading, action: Action): PolicyRule | undefined {
  if (action === "allow") return http.length > 0 || unreadable.length > 0 ? undefined : { clauses };
  // A match that lost every value it had would never hold, and the denial with it: the clause is dropped instead, which denies more.
  return { clauses: clauses.filter(({ matches }) => !matches.some((match) => emptied.has(match))) };
}

interface Explained {
  readonly action: Action;
  /** Fields beside the rules that nobody knows. */
  readonly unknown: readonly string[];
  /** Why the rules were replaced. */
  readonly closed: string | undefined;
}

function explain(readings: readonly RuleReading[], { action, unknown, closed }: Explained): ConditionWish {
  const unreadable = readings.flatMap((reading) => reading.unreadable);
  const problems: string[] = [];
  if (unknown.length > 0) {
    problems.push(`${listProblems(unknown)}; the policy applies without what cannot be read${closed === undefined ? "" : `: ${closed}`}`);
  }
  if (unreadable.length > 0) {
    const effect =
      action === "allow" ? "the rules that hold them are omitted, so they allow nothing" : "the rules that hold them are kept without them, so they deny more";
    problems.push(`fields or values that cannot be read: ${listProblems(unreadable)}; ${effect}`);
  }
  if (problems.length > 0) return wish("False", "Invalid", problems.join(". "));
  const http = [...new Set(readings.flatMap((reading) => reading.http))];
  if (http.length === 0) return wish("True", "Accepted", "attached to ztunnel");
  const named = `ztunnel does not support HTTP attributes (found: ${http.join(", ")}). In ambient mode you must use a waypoint proxy to enforce HTTP rules.`;
  if (action === "allow")
    return wish(
      "True",
      "UnsupportedValue",
      `${named} Within an ALLOW policy, rules matching HTTP attributes are omitted. This will be more restrictive than requested.`,
    );
  const inert = readings.some(({ http: attributes, clauses }) => attributes.length > 0 && clauses.some(neverHolds));
  const effect = inert
    ? "a rule that consists of them has no effect."
    : "a rule that mentions them applies without them. This will be more restrictive than requested.";
  return wish("True", "UnsupportedValue", `${named} Within a DENY policy, ${effect}`);
}

function neverHolds({ matches }: PolicyClause): boolean {
  return matches.length > 0 && matches.every(isEmptyMatch);
}

function wish(status: ConditionWish["status"], reason: string, message: string): ConditionWish {
  return { type: conditionType, status, reason, message };
}
