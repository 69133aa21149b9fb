/** The types the server has: the built-in table, and the registry that CustomResourceDefinitions add to. */
import type { CustomSchema } from "./custom-schema.ts";
import { hasShape } from "./shapes.ts";

export interface PrinterColumn {
  readonly name: string;
  readonly type: string;
  readonly description: string;
  /** 0 always, 1 only in wide output. */
  readonly priority: number;
  readonly jsonPath: string;
}

export interface CustomPart {
  readonly schema: CustomSchema;
  readonly columns: readonly PrinterColumn[];
  readonly selectableFields: readonly string[];
  readonly scalePaths?: { readonly spec: string; readonly status: string; readonly selector?: string };
  /** The name of the CustomResourceDefinition. */
  readonly definition: string;
}

/** One resource in one version. Versions of one CRD share a table. */
export interface ResourceType {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly listKind: string;
  readonly plural: string;
  readonly singular: string;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  readonly namespaced: boolean;
  /** Where its objects are stored. */
  readonly table: string;
  readonly subresources: ReadonlySet<string>;
  /** Whether `metadata.generation` counts changes of the desired state. */
  readonly generation: boolean;
  /** The name of its shape, for built-in types. */
  readonly shape?: string;
  readonly custom?: CustomPart;
}

export const storedVerbs: readonly string[] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

export function apiVersionOf(type: { readonly group: string; readonly version: string }): string {
  return type.group === "" ? type.version : `${type.group}/${type.version}`;
}

export function tableOf(group: string, plural: string): string {
  return group === "" ? plural : `${plural}.${group}`;
}

export class ResourceTypes {
  #custom: ReadonlyMap<string, readonly ResourceType[]> = new Map();
  readonly #builtIn: readonly ResourceType[] = builtInTypes;

  all(): readonly ResourceType[] {
    return [...this.#builtIn, ...[...this.#custom.values()].flat()];
  }

  find(group: string, version: string, plural: string): ResourceType | undefined {
    return this.all().find((type) => type.plural === plural && type.group === group && type.version === version);
  }

  /** The type that an owner reference or an applied object names. */
  findKind(group: string, version: string, kind: string): ResourceType | undefined {
    const candidates = this.all().filter((type) => type.kind === kind && type.group === group);
    return candidates.find((type) => type.version === version) ?? candidates[0];
  }

  /** One version, whichever is first, of the resource: for code that handles objects whatever their version. */
  anyVersion(table: string): ResourceType | undefined {
    return this.all().find((type) => type.table === table);
  }

  /** The types one CustomResourceDefinition defines; replaces what it defined before. */
  define(definition: string, types: readonly ResourceType[]): void {
    this.#custom = new Map([...this.#custom, [definition, types]]);
  }

  undefine(definition: string): void {
    this.#custom = new Map([...this.#custom].filter(([name]) => name !== definition));
  }
}

type Row = readonly [kind: string, plural: string, shortNames: string, scope: "ns" | "cluster", subresources: string, flags: string];

const rows: Readonly<Record<string, readonly Row[]>> = {
  v1: [
    ["Namespace", "namespaces", "ns", "cluster", "status finalize", ""],
    ["Node", "nodes", "no", "cluster", "status", ""],
    ["Pod", "pods", "po", "ns", "status log exec attach portforward binding eviction", "all"],
    ["Service", "services", "svc", "ns", "status", "all"],
    ["Endpoints", "endpoints", "ep", "ns", "", ""],
    ["ConfigMap", "configmaps", "cm", "ns", "", ""],
    ["Secret", "secrets", "", "ns", "", ""],
    ["ServiceAccount", "serviceaccounts", "sa", "ns", "token", ""],
    ["Event", "events", "ev", "ns", "", ""],
    ["PersistentVolumeClaim", "persistentvolumeclaims", "pvc", "ns", "status", ""],
    ["LimitRange", "limitranges", "limits", "ns", "", ""],
    ["ResourceQuota", "resourcequotas", "quota", "ns", "status", ""],
  ],
  "apps/v1": [
    ["Deployment", "deployments", "deploy", "ns", "status scale", "all generation"],
    ["DaemonSet", "daemonsets", "ds", "ns", "status", "all generation"],
    ["ReplicaSet", "replicasets", "rs", "ns", "status scale", "all generation"],
    ["StatefulSet", "statefulsets", "sts", "ns", "status scale", "all generation"],
    ["ControllerRevision", "controllerrevisions", "", "ns", "", ""],
  ],
  "batch/v1": [
    ["Job", "jobs", "", "ns", "status", "all generation"],
    ["CronJob", "cronjobs", "cj", "ns", "status", "all generation"],
  ],
  "discovery.k8s.io/v1": [["EndpointSlice", "endpointslices", "", "ns", "", "generation"]],
  "coordination.k8s.io/v1": [["Lease", "leases", "", "ns", "", ""]],
  "rbac.authorization.k8s.io/v1": [
    ["Role", "roles", "", "ns", "", ""],
    ["RoleBinding", "rolebindings", "", "ns", "", ""],
    ["ClusterRole", "clusterroles", "", "cluster", "", ""],
    ["ClusterRoleBinding", "clusterrolebindings", "", "cluster", "", ""],
  ],
  "policy/v1": [["PodDisruptionBudget", "poddisruptionbudgets", "pdb", "ns", "status", "generation"]],
  "autoscaling/v2": [["HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", "ns", "status", "all"]],
  "admissionregistration.k8s.io/v1": [
    ["ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "", "cluster", "", "api-extensions generation"],
    ["MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "", "cluster", "", "api-extensions generation"],
    ["ValidatingAdmissionPolicy", "validatingadmissionpolicies", "", "cluster", "status", "api-extensions generation"],
    ["ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "", "cluster", "", "api-extensions generation"],
  ],
  "networking.k8s.io/v1": [
    ["NetworkPolicy", "networkpolicies", "netpol", "ns", "", "generation"],
    ["Ingress", "ingresses", "ing", "ns", "status", "generation"],
    ["IngressClass", "ingressclasses", "", "cluster", "", "generation"],
  ],
  "scheduling.k8s.io/v1": [["PriorityClass", "priorityclasses", "pc", "cluster", "", "generation"]],
  "apiextensions.k8s.io/v1": [["CustomResourceDefinition", "customresourcedefinitions", "crd crds", "cluster", "status", "api-extensions generation"]],
};

const singulars: Readonly<Record<string, string>> = { endpoints: "endpoints", ingresses: "ingress" };

const builtInTypes: readonly ResourceType[] = Object.entries(rows).flatMap(([apiVersion, list]) => {
  const [group, version] = apiVersion.includes("/") ? apiVersion.split("/", 2) : ["", apiVersion];
  return list.map(([kind, plural, shortNames, scope, subresources, flags]): ResourceType => {
    const words = flags.split(" ");
    return {
      group: group ?? "",
      version: version ?? "",
      kind,
      listKind: `${kind}List`,
      plural,
      singular: singulars[plural] ?? kind.toLowerCase(),
      shortNames: shortNames === "" ? [] : shortNames.split(" "),
      categories: words.filter((word) => word === "all" || word === "api-extensions"),
      namespaced: scope === "ns",
      table: tableOf(group ?? "", plural),
      subresources: new Set(subresources === "" ? [] : subresources.split(" ")),
      generation: words.includes("generation"),
      ...(hasShape(kind) ? { shape: kind } : {}),
    };
  });
});
