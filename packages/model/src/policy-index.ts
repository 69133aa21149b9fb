/** The policies of a snapshot and which of them apply to a workload. Shared by all snapshots between two policy changes. */
import { GroupBatch, GroupIndex } from "./group-index.ts";
import { hashText, type Keyed, PersistentMap } from "./persistent-map.ts";
import type { AuthorizationPolicy } from "./policy.ts";
import { type PolicyKey, policyKey, type Workload } from "./workload.ts";

export interface ApplicablePolicies {
  readonly policies: readonly AuthorizationPolicy[];
  readonly missing: readonly PolicyKey[];
}

/** What of a workload decides which policies apply to it. */
export type PolicySubject = Pick<Workload, "namespace" | "authorizationPolicies">;

const keyOf = ({ namespace, name }: AuthorizationPolicy): PolicyKey => policyKey(namespace, name);
const byPolicyKey: Keyed<PolicyKey, AuthorizationPolicy> = { keyOf, hash: hashText, isKey: (value, key) => keyOf(value) === key };
const none: readonly PolicyKey[] = [];
/** Group of the global policies; no namespace is called so. */
const globalGroup = "";

export class PolicyIndex {
  readonly #byKey: PersistentMap<PolicyKey, AuthorizationPolicy>;
  /** Global and namespace-scoped policies by the namespace they apply to. */
  readonly #byNamespace: GroupIndex<PolicyKey, AuthorizationPolicy>;
  /** Answers given before. An index never changes, so they stay true; they go when it goes. */
  readonly #ofNamespace: Map<string, ApplicablePolicies> = new Map();
  readonly #ofWorkload: WeakMap<PolicySubject, ApplicablePolicies> = new WeakMap();

  private constructor(byKey: PersistentMap<PolicyKey, AuthorizationPolicy>, byNamespace: GroupIndex<PolicyKey, AuthorizationPolicy>) {
    this.#byKey = byKey;
    this.#byNamespace = byNamespace;
  }

  static readonly empty: PolicyIndex = new PolicyIndex(PersistentMap.empty(byPolicyKey), GroupIndex.empty(byPolicyKey));

  get(key: PolicyKey): AuthorizationPolicy | undefined {
    return this.#byKey.get(key);
  }

  all(): Iterable<AuthorizationPolicy> {
    return this.#byKey;
  }

  /** The same arrays for the same workload, so that whoever compiles them need not do it twice. */
  appliesTo(workload: PolicySubject): ApplicablePolicies {
    if (workload.authorizationPolicies.length === 0) return this.#namespacePolicies(workload.namespace);
    const known = this.#ofWorkload.get(workload);
    if (known !== undefined) return known;
    const applicable = this.#withSelected(workload);
    this.#ofWorkload.set(workload, applicable);
    return applicable;
  }

  apply(removed: readonly PolicyKey[], upserted: readonly AuthorizationPolicy[]): PolicyIndex {
    if (removed.length === 0 && upserted.length === 0) return this;
    const batch = new GroupBatch<PolicyKey, AuthorizationPolicy>();
    const byKey = this.#byKey.edit((editor) => {
      const forget = (key: PolicyKey) => {
        const last = editor.get(key);
        const group = last && groupOf(last);
        if (group !== undefined) batch.set(group, key, undefined);
        editor.delete(key);
      };
      for (const key of removed) forget(key);
      for (const policy of upserted) {
        forget(keyOf(policy));
        editor.set(policy);
        const group = groupOf(policy);
        if (group !== undefined) batch.set(group, keyOf(policy), policy);
      }
    });
    return new PolicyIndex(byKey, this.#byNamespace.apply(batch));
  }

  #namespacePolicies(namespace: string): ApplicablePolicies {
    const known = this.#ofNamespace.get(namespace);
    if (known !== undefined) return known;
    const own = this.#byNamespace.members(namespace);
    if (own.size === 0 && namespace !== globalGroup) return this.#namespacePolicies(globalGroup);
    const global = namespace === globalGroup ? [] : this.#namespacePolicies(globalGroup).policies;
    const applicable: ApplicablePolicies = { policies: [...global, ...own], missing: none };
    this.#ofNamespace.set(namespace, applicable);
    return applicable;
  }

  #withSelected({ namespace, authorizationPolicies }: PolicySubject): ApplicablePolicies {
    const policies = new Set(this.#namespacePolicies(namespace).policies);
    const missing: PolicyKey[] = [];
    for (const key of authorizationPolicies) {
      const policy = this.#byKey.get(key);
      if (policy === undefined) missing.push(key);
      else policies.add(policy);
    }
    return { policies: [...policies], missing };
  }
}

/** Selector-scoped policies are in no group: workloads name them. */
function groupOf({ scope, namespace }: AuthorizationPolicy): string | undefined {
  if (scope === "workload-selector") return undefined;
  return scope === "global" ? globalGroup : namespace;
}
