/** What stands in for a policy that was sent and could not be read: whoever it may have been meant for is denied until it can be. */
import type { AuthorizationPolicy, PolicyRule } from "./policy.ts";

/** What could still be read of it; undefined where nothing could. */
export interface RefusedPolicy {
  readonly namespace: string;
  readonly name: string;
  readonly scope: AuthorizationPolicy["scope"] | undefined;
  readonly action: AuthorizationPolicy["action"] | undefined;
  readonly dryRun: boolean;
}

/** Without clauses: it holds for everybody. */
const everybody: PolicyRule = { clauses: [] };

/**
 * An unreadable ALLOW allows nobody, anything else denies everybody, in the scope of the policy. A scope that is not known is the widest
 * that a policy of this namespace can have: the mesh for `rootNamespace`, else the namespace. Undefined for a policy with a selector: the
 * workloads that name it are denied because it is not known.
 */
export function standInFor(policy: RefusedPolicy, rootNamespace: string): AuthorizationPolicy | undefined {
  const { namespace, name, action = "deny", dryRun } = policy;
  const scope = policy.scope ?? (namespace === "" || namespace === rootNamespace ? "global" : "namespace");
  if (scope === "workload-selector") return undefined;
  return { name, namespace, scope, action, rules: action === "allow" ? [] : [everybody], dryRun, refused: true };
}
