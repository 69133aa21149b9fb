/** What kubectl, helm and clients ask first: which groups, versions and resources there are. */
import { apiVersionOf, type ResourceType, storedVerbs } from "./resource-types.ts";

/** Types that exist only as requests, never in storage. */
interface VirtualResource {
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly kind: string;
}

export const virtualResources: readonly VirtualResource[] = [
  { group: "authentication.k8s.io", version: "v1", plural: "tokenreviews", kind: "TokenReview" },
  { group: "authentication.k8s.io", version: "v1", plural: "selfsubjectreviews", kind: "SelfSubjectReview" },
  { group: "authorization.k8s.io", version: "v1", plural: "selfsubjectaccessreviews", kind: "SelfSubjectAccessReview" },
  { group: "authorization.k8s.io", version: "v1", plural: "selfsubjectrulesreviews", kind: "SelfSubjectRulesReview" },
  { group: "authorization.k8s.io", version: "v1", plural: "subjectaccessreviews", kind: "SubjectAccessReview" },
];

interface SubresourceKind {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly verbs: readonly string[];
}

function subresourceKind(type: ResourceType, subresource: string): SubresourceKind {
  const own = { group: type.group, version: type.version, kind: type.kind };
  switch (subresource) {
    case "scale":
      return { group: "autoscaling", version: "v1", kind: "Scale", verbs: ["get", "patch", "update"] };
    case "status":
      return { ...own, verbs: ["get", "patch", "update"] };
    case "finalize":
      return { ...own, verbs: ["update"] };
    case "token":
      return { group: "authentication.k8s.io", version: "v1", kind: "TokenRequest", verbs: ["create"] };
    case "eviction":
      return { group: "policy", version: "v1", kind: "Eviction", verbs: ["create"] };
    case "binding":
      return { group: "", version: "v1", kind: "Binding", verbs: ["create"] };
    case "log":
      return { ...own, verbs: ["get"] };
    default:
      return { group: "", version: "v1", kind: `Pod${subresource.charAt(0).toUpperCase()}${subresource.slice(1)}Options`, verbs: ["create", "get"] };
  }
}

/** Versions of a group, the preferred first. */
function groupVersions(types: readonly ResourceType[]): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, string[]>();
  for (const { group, version } of [...types, ...virtualResources]) {
    const versions = found.get(group) ?? [];
    if (!versions.includes(version)) versions.push(version);
    found.set(group, versions.sort(byStability));
  }
  return found;
}

/** v2 before v1, v1 before v1beta1, beta before alpha, as Kubernetes orders versions. */
export function byStability(left: string, right: string): number {
  const rank = (version: string): readonly [number, number, number] => {
    const [, major = "0", stage, minor = "0"] = /^v(\d{1,6})(?:(alpha|beta)(\d{1,6}))?$/.exec(version) ?? [];
    return [stage === undefined ? 2 : stage === "beta" ? 1 : 0, Number(major), Number(minor)];
  };
  const [a, b] = [rank(left), rank(right)];
  return b[0] - a[0] || b[1] - a[1] || b[2] - a[2] || (left < right ? -1 : 1);
}

export function legacyVersions(): unknown {
  return { kind: "APIVersions", versions: ["v1"], serverAddressByClientCIDRs: [] };
}

export function legacyGroups(types: readonly ResourceType[]): unknown {
  return {
    kind: "APIGroupList",
    apiVersion: "v1",
    groups: [...groupVersions(types)].filter(([group]) => group !== "").map(([group, versions]) => groupDocument(group, versions)),
  };
}

/** `/apis/<group>`, or nothing for an unknown group. */
export function legacyGroup(types: readonly ResourceType[], group: string): unknown {
  const versions = group === "" ? undefined : groupVersions(types).get(group);
  return versions === undefined ? undefined : { kind: "APIGroup", apiVersion: "v1", ...groupDocument(group, versions) };
}

function groupDocument(group: string, versions: readonly string[]) {
  const list = versions.map((version) => ({ groupVersion: `${group}/${version}`, version }));
  return { name: group, versions: list, preferredVersion: list[0] };
}

/** `/api/v1` or `/apis/<group>/<version>`, or nothing when the group version is unknown. */
export function legacyResources(types: readonly ResourceType[], group: string, version: string): unknown {
  const own = types.filter((type) => type.group === group && type.version === version);
  const virtual = virtualResources.filter((type) => type.group === group && type.version === version);
  if (own.length + virtual.length === 0) return undefined;
  const resources = [
    ...own.flatMap((type) => [
      {
        name: type.plural,
        singularName: type.singular,
        namespaced: type.namespaced,
        kind: type.kind,
        verbs: storedVerbs,
        ...(type.shortNames.length === 0 ? {} : { shortNames: type.shortNames }),
        ...(type.categories.length === 0 ? {} : { categories: type.categories }),
      },
      ...[...type.subresources].map((subresource) => {
        const { group: ownGroup, version: ownVersion, kind, verbs } = subresourceKind(type, subresource);
        return {
          name: `${type.plural}/${subresource}`,
          singularName: "",
          namespaced: type.namespaced,
          kind,
          verbs,
          ...(ownGroup === group && ownVersion === version ? {} : { group: ownGroup, version: ownVersion }),
        };
      }),
    ]),
    ...virtual.map((type) => ({ name: type.plural, singularName: type.kind.toLowerCase(), namespaced: false, kind: type.kind, verbs: ["create"] })),
  ];
  return { kind: "APIResourceList", apiVersion: "v1", groupVersion: apiVersionOf({ group, version }), resources };
}

/** The aggregated document, `APIGroupDiscoveryList` v2: everything in one answer. */
export function aggregated(types: readonly ResourceType[], core: boolean): unknown {
  const groups = [...groupVersions(types)].filter(([group]) => (group === "") === core);
  return {
    kind: "APIGroupDiscoveryList",
    apiVersion: "apidiscovery.k8s.io/v2",
    metadata: {},
    items: groups.map(([group, versions]) => ({
      metadata: { name: group, creationTimestamp: null },
      versions: versions.map((version) => ({ version, freshness: "Current", resources: aggregatedResources(types, group, version) })),
    })),
  };
}

function aggregatedResources(types: readonly ResourceType[], group: string, version: string): readonly unknown[] {
  const own = types.filter((type) => type.group === group && type.version === version);
  return [
    ...own.map((type) => ({
      resource: type.plural,
      responseKind: { group, version, kind: type.kind },
      scope: type.namespaced ? "Namespaced" : "Cluster",
      singularResource: type.singular,
      verbs: storedVerbs,
      ...(type.shortNames.length === 0 ? {} : { shortNames: type.shortNames }),
      ...(type.categories.length === 0 ? {} : { categories: type.categories }),
      subresources: [...type.subresources].map((subresource) => {
        const { verbs, ...responseKind } = subresourceKind(type, subresource);
        return { subresource, responseKind, verbs };
      }),
    })),
    ...virtualResources
      .filter((type) => type.group === group && type.version === version)
      .map((type) => ({
        resource: type.plural,
        responseKind: { group, version, kind: type.kind },
        scope: "Cluster",
        singularResource: type.kind.toLowerCase(),
        verbs: ["create"],
      })),
  ];
}
