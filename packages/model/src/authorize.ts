/** May this connection be? The L4 policy decision of ztunnel contract 6, failing closed on policies that are not known. */
import { type CompiledPolicy, compileSet, type MatchFacts, matchFacts, policyMatches } from "./compiled-policy.ts";
import type { ConnectionFacts } from "./policy.ts";
import type { Snapshot } from "./snapshot.ts";
import type { PolicyKey, Workload } from "./workload.ts";

/** A permit carries what the log and the metrics say about why the connection may be. */
export type Verdict =
  | { readonly allowed: true; readonly policy: PolicyKey | undefined; readonly dryRun: readonly DryRunResult[] }
  | {
      readonly allowed: false;
      readonly reason: DenialReason;
      readonly policy: PolicyKey | undefined;
      readonly message: string;
      readonly dryRun: readonly DryRunResult[];
    };

export type DenialReason = "explicitly-denied" | "not-allowed" | "policy-unknown";

export interface DryRunResult {
  readonly policy: PolicyKey;
  readonly effect: "would-deny" | "would-allow" | "would-not-allow";
}

const noDryRun: readonly DryRunResult[] = [];

/**
 * Decides for the destination `workload`, in the order of ztunnel contract 6.3: a DENY that matches, then no ALLOW at all, then an ALLOW
 * that matches. Dry-run policies are only reported. A policy that the workload names and the snapshot does not know denies, where the
 * reference skips it.
 */
export function authorize(snapshot: Snapshot, workload: Workload, facts: ConnectionFacts): Verdict {
  const { policies, missing } = snapshot.policiesFor(workload);
  const unknown = missing[0];
  if (policies.length === 0 && unknown === undefined) return { allowed: true, policy: undefined, dryRun: noDryRun };
  const { deny, allow, dryRunDeny, dryRunAllow } = compileSet(policies);
  const subject = matchFacts(facts);
  const dryRun = dryRunResults(dryRunDeny, dryRunAllow, allow.length > 0, subject);

  const denying = firstMatch(deny, subject);
  if (denying?.refused === true) {
    return { allowed: false, reason: "policy-unknown", policy: denying.key, message: `policy applies but could not be read: ${denying.key}`, dryRun };
  }
  if (denying !== undefined) {
    return { allowed: false, reason: "explicitly-denied", policy: denying.key, message: `explicitly denied by: ${denying.key}`, dryRun };
  }
  if (unknown !== undefined) {
    return { allowed: false, reason: "policy-unknown", policy: unknown, message: `policy applies but is not known yet: ${unknown}`, dryRun };
  }
  if (allow.length === 0) return { allowed: true, policy: undefined, dryRun };
  const allowing = firstMatch(allow, subject);
  if (allowing !== undefined) return { allowed: true, policy: allowing.key, dryRun };
  return { allowed: false, reason: "not-allowed", policy: undefined, message: `allow policies exist, but none allowed: ${namesOf(allow)}`, dryRun };
}

/** Enough names to know where to look. */
const mostNames = 3;

function namesOf(policies: readonly CompiledPolicy[]): string {
  const names = policies.slice(0, mostNames).map(({ key }) => key);
  return policies.length > mostNames ? `${names.join(", ")} and ${policies.length - mostNames} more` : names.join(", ");
}

/** Of several dry-run ALLOW policies of which none matches, the first one stands for all. */
function dryRunResults(deny: readonly CompiledPolicy[], allow: readonly CompiledPolicy[], enforced: boolean, subject: MatchFacts): readonly DryRunResult[] {
  if (deny.length === 0 && allow.length === 0) return noDryRun;
  const matching = (policies: readonly CompiledPolicy[], effect: DryRunResult["effect"]): DryRunResult[] =>
    policies.filter((policy) => policyMatches(policy, subject)).map(({ key }) => ({ policy: key, effect }));
  const denied = matching(deny, "would-deny");
  const allowed = matching(allow, "would-allow");
  const representative = allow[0];
  if (representative === undefined || allowed.length > 0 || enforced) return [...denied, ...allowed];
  return [...denied, { policy: representative.key, effect: "would-not-allow" }];
}

function firstMatch(policies: readonly CompiledPolicy[], subject: MatchFacts): CompiledPolicy | undefined {
  for (const policy of policies) if (policyMatches(policy, subject)) return policy;
  return undefined;
}
