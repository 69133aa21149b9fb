/** Manifests as people write them (YAML, many documents), applied in the order that lets every object find what it needs. */
import { MeshError } from "@fairway/runtime";
import { parseAllDocuments } from "yaml";
import type { KubeClient, KubeObject, ResourceType } from "./collection.ts";

/** Kinds that others depend on, first to last; everything else follows in the order it was written. */
const kindOrder = [
  "Namespace",
  "CustomResourceDefinition",
  "PriorityClass",
  "ServiceAccount",
  "ClusterRole",
  "ClusterRoleBinding",
  "Role",
  "RoleBinding",
  "ConfigMap",
  "Secret",
  "Service",
];

/** Parses a YAML stream into objects. Throws KUBE_BAD_MANIFEST naming the document and the line. */
export function parseManifests(text: string): KubeObject[] {
  return parseAllDocuments(text).flatMap((document, index) => {
    const [problem] = document.errors;
    if (problem !== undefined) throw new MeshError("KUBE_BAD_MANIFEST", `document ${index + 1} is not valid YAML: ${problem.message}`);
    const value: unknown = document.toJS();
    if (value === null || value === undefined) return [];
    if (!isKubeObject(value))
      throw new MeshError("KUBE_BAD_MANIFEST", `document ${index + 1} is not a Kubernetes object: apiVersion, kind or metadata.name is missing`);
    return [value];
  });
}

/** Applies a YAML stream server-side, dependencies first. Returns what the server stored. */
export async function applyManifests(client: KubeClient, text: string, options: { fieldManager: string; namespace?: string }): Promise<KubeObject[]> {
  const rank = (object: KubeObject): number => {
    const index = kindOrder.indexOf(object.kind ?? "");
    return index === -1 ? kindOrder.length : index;
  };
  const objects = parseManifests(text).sort((a, b) => rank(a) - rank(b));
  const types = new Map<string, ResourceType>();
  const stored: KubeObject[] = [];
  for (const object of objects) {
    const kind = `${object.apiVersion}/${object.kind}`;
    const type = types.get(kind) ?? (await discoverType(client, object.apiVersion ?? "", object.kind ?? ""));
    types.set(kind, type);
    const placed =
      type.namespaced && object.metadata.namespace === undefined
        ? { ...object, metadata: { ...object.metadata, namespace: options.namespace ?? "default" } }
        : object;
    stored.push(await client.apply(type, placed, { fieldManager: options.fieldManager, force: true }));
  }
  return stored;
}

/** The resource type of a kind, asked of the server. Throws KUBE_UNKNOWN_KIND. */
export async function discoverType(client: KubeClient, apiVersion: string, kind: string): Promise<ResourceType> {
  const [group, version] = apiVersion.includes("/") ? apiVersion.split("/", 2) : ["", apiVersion];
  const path = group === "" ? `/api/${version}` : `/apis/${group}/${version}`;
  const { resources } = await client.request<{ resources: { name: string; kind: string; namespaced: boolean }[] }>("GET", path);
  const found = resources.find((resource) => resource.kind === kind && !resource.name.includes("/"));
  if (found === undefined)
    throw new MeshError("KUBE_UNKNOWN_KIND", `the server at ${client.server} has no kind ${kind} in ${apiVersion}; is its CRD installed?`);
  return { group: group ?? "", version: version ?? "", plural: found.name, kind, namespaced: found.namespaced };
}

function isKubeObject(value: unknown): value is KubeObject {
  if (typeof value !== "object" || value === null) return false;
  const { apiVersion, kind, metadata } = value as Partial<KubeObject>;
  return typeof apiVersion === "string" && typeof kind === "string" && typeof metadata?.name === "string";
}
