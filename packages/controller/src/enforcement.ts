/** Which request policies and token rules a waypoint enforces, and for what (controller contract 4.7). */
import { type AuthorizationPolicyObject, type Collection, derive, type Fetch, index, type RequestAuthentication } from "@fairway/kube";
import type { RequestPolicy, TokenRule } from "@fairway/model";
import { classTarget, convertRequestPolicy, gatewayTarget, type RequestPolicyOutcome, serviceTarget } from "./request-policies.ts";
import type { MeshSettings } from "./settings.ts";
import { convertRequestAuthentication, type TokenOutcome } from "./token-rules.ts";
import type { Waypoint } from "./waypoints.ts";

export interface Enforcement {
  readonly requestPolicies: Collection<RequestPolicyOutcome>;
  readonly tokenRules: Collection<TokenOutcome>;
  /** For a service, or, without one, for what is addressed directly. */
  readonly at: (fetch: Fetch, waypoint: Target, service: { readonly namespace: string; readonly name: string } | undefined) => Enforced;
}

type Target = Pick<Waypoint, "namespace" | "name" | "className">;

export interface Enforced {
  readonly policies: readonly RequestPolicy[];
  readonly tokens: readonly TokenRule[];
}

export function deriveEnforcement(
  targetedPolicies: Collection<AuthorizationPolicyObject>,
  targetedAuthentications: Collection<RequestAuthentication>,
  { rootNamespace }: MeshSettings,
): Enforcement {
  const requestPolicies = derive(targetedPolicies, (object) => convertRequestPolicy(object, rootNamespace));
  const tokenRules = derive(targetedAuthentications, (object) => convertRequestAuthentication(object, rootNamespace));
  const policiesByTarget = index(requestPolicies, ({ targets }) => new Set(targets));
  const tokensByTarget = index(tokenRules, ({ targets }) => new Set(targets));
  return {
    requestPolicies,
    tokenRules,
    at: (fetch, waypoint, service) => {
      const targets = [gatewayTarget(waypoint.namespace, waypoint.name), classTarget(waypoint.className)];
      if (service !== undefined) targets.push(serviceTarget(service.namespace, service.name));
      const policies = new Map(targets.flatMap((target) => fetch.lookup(policiesByTarget, target)).map(({ key, policy }) => [key, policy]));
      const tokens = new Map(targets.flatMap((target) => fetch.lookup(tokensByTarget, target)).map(({ key, rules }) => [key, rules]));
      return { policies: sorted(policies), tokens: sorted(tokens).flat() };
    },
  };
}

/** Whether requests are refused for what they are: an audit and a dry run refuse nothing. */
export function refusesRequests({ policies, tokens }: Enforced): boolean {
  return tokens.length > 0 || policies.some(({ action, dryRun }) => action !== "audit" && !dryRun);
}

/** By key, so that every replica says the same. */
function sorted<T>(byKey: ReadonlyMap<string, T>): readonly T[] {
  return [...byKey].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, value]) => value);
}
