/** May this user do this: RBAC over the stored roles and bindings. Nothing allows unless a rule says so. */
import type { User } from "./authentication.ts";
import { arrayAt, atPath, isObject, type Json, type JsonObject, objectAt } from "./json.ts";
import type { KubeObject } from "./kube-object.ts";
import { labelSelectorObject } from "./selectors.ts";
import type { Storage } from "./storage.ts";

export interface ResourceAttributes {
  readonly kind: "resource";
  readonly verb: string;
  readonly group: string;
  readonly resource: string;
  readonly subresource: string;
  readonly namespace: string;
  readonly name: string;
}

export interface PathAttributes {
  readonly kind: "path";
  readonly verb: string;
  readonly path: string;
}

export type Attributes = ResourceAttributes | PathAttributes;

const rbac = "rbac.authorization.k8s.io";

export class Authorizer {
  readonly #storage: Storage;

  constructor(storage: Storage) {
    this.#storage = storage;
  }

  allowed(user: User, attributes: Attributes): boolean {
    if (user.groups.includes("system:masters")) return true;
    const namespace = attributes.kind === "resource" ? attributes.namespace : "";
    return this.rules(user, namespace).some((rule) => ruleAllows(rule, attributes));
  }

  /** All rules that hold for the user in the namespace, cluster-wide ones included. */
  rules(user: User, namespace: string): readonly JsonObject[] {
    if (user.groups.includes("system:masters")) {
      return [
        { verbs: ["*"], apiGroups: ["*"], resources: ["*"] },
        { verbs: ["*"], nonResourceURLs: ["*"] },
      ];
    }
    const cluster = this.#bound(`clusterrolebindings.${rbac}`, undefined, user);
    const local = namespace === "" ? [] : this.#bound(`rolebindings.${rbac}`, namespace, user);
    return [...cluster, ...local];
  }

  #bound(table: string, namespace: string | undefined, user: User): readonly JsonObject[] {
    return this.#storage.list(table, namespace).flatMap((binding) => {
      if (!arrayAt(binding["subjects"]).some((subject) => subjectMatches(subject, user, binding.metadata.namespace))) return [];
      const role = this.#role(objectAt(binding["roleRef"]), namespace);
      return role === undefined ? [] : this.#rulesOf(role);
    });
  }

  #role(reference: JsonObject, namespace: string | undefined): KubeObject | undefined {
    const name = reference["name"];
    if (typeof name !== "string") return undefined;
    if (reference["kind"] === "ClusterRole") return this.#storage.get(`clusterroles.${rbac}`, "", name);
    return namespace === undefined ? undefined : this.#storage.get(`roles.${rbac}`, namespace, name);
  }

  /** An aggregated role has the rules of the cluster roles its selectors pick, besides its own. */
  #rulesOf(role: KubeObject): readonly JsonObject[] {
    const own = arrayAt(role["rules"]).filter(isObject);
    const selectors = arrayAt(atPath(role, "aggregationRule", "clusterRoleSelectors"))
      .filter(isObject)
      .map(labelSelectorObject);
    if (selectors.length === 0) return own;
    const picked = this.#storage
      .list(`clusterroles.${rbac}`)
      .filter((other) => other !== role && selectors.some((matches) => matches(other.metadata.labels ?? {})));
    return [...own, ...picked.flatMap((other) => arrayAt(other["rules"]).filter(isObject))];
  }
}

function subjectMatches(subject: Json, user: User, bindingNamespace: string | undefined): boolean {
  const { kind, name, namespace } = objectAt(subject);
  if (typeof name !== "string") return false;
  switch (kind) {
    case "User":
      return user.name === name;
    case "Group":
      return user.groups.includes(name);
    case "ServiceAccount": {
      const home = typeof namespace === "string" && namespace !== "" ? namespace : bindingNamespace;
      return home !== undefined && user.name === `system:serviceaccount:${home}:${name}`;
    }
    default:
      return false;
  }
}

function ruleAllows(rule: JsonObject, attributes: Attributes): boolean {
  if (!lists(rule["verbs"], attributes.verb)) return false;
  if (attributes.kind === "path") {
    return arrayAt(rule["nonResourceURLs"]).some((pattern) => typeof pattern === "string" && pathMatches(pattern, attributes.path));
  }
  const { group, resource, subresource, name } = attributes;
  if (!lists(rule["apiGroups"], group)) return false;
  const full = subresource === "" ? resource : `${resource}/${subresource}`;
  const resources = arrayAt(rule["resources"]);
  if (!resources.some((entry) => entry === "*" || entry === full || (subresource !== "" && entry === `*/${subresource}`))) return false;
  const names = arrayAt(rule["resourceNames"]);
  return names.length === 0 || (name !== "" && names.includes(name));
}

function lists(values: Json | undefined, wanted: string): boolean {
  return arrayAt(values).some((value) => value === "*" || value === wanted);
}

function pathMatches(pattern: string, path: string): boolean {
  return pattern === "*" || pattern === path || (pattern.endsWith("*") && path.startsWith(pattern.slice(0, -1)));
}

/** The message of a refusal, word for word as the reference's, because people search for it. */
export function refusal(user: User, attributes: Attributes): string {
  const who = `User ${JSON.stringify(user.name)} cannot ${attributes.verb}`;
  if (attributes.kind === "path") return `${who} path ${JSON.stringify(attributes.path)}`;
  const { resource, subresource, group, namespace } = attributes;
  const what = subresource === "" ? resource : `${resource}/${subresource}`;
  const where = namespace === "" ? "at the cluster scope" : `in the namespace ${JSON.stringify(namespace)}`;
  return `${who} resource ${JSON.stringify(what)} in API group ${JSON.stringify(group)} ${where}`;
}
