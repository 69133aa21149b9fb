/** YAML manifests onto a cluster, as `kubectl apply --server-side` would. */
import { type Clock, MeshError, systemClock } from "@fairway/runtime";
import { parseAllDocuments } from "yaml";
import type { KubeClient, KubeObject, ResourceType } from "./collection.ts";

export interface ApplyManifestsOptions {
  readonly fieldManager: string;
  readonly clock?: Clock;
  /** How long a kind may take to be served after its definition was applied. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

const definitionTimeoutMs = 30_000;
const retryMs = 200;
const never = new AbortController().signal;

/** Every object of a YAML text, Lists taken apart. Throws KUBE_INVALID naming the document that cannot be read. */
export function parseManifests(text: string): KubeObject[] {
  return parseAllDocuments(text).flatMap((document, index) => {
    const [error] = document.errors;
    if (error !== undefined) throw new MeshError("KUBE_INVALID", `document ${index + 1} is not YAML`, { cause: error });
    const value: unknown = document.toJS();
    if (value === null || value === undefined) return [];
    return flatten(value, index);
  });
}

function flatten(value: unknown, index: number): KubeObject[] {
  if (typeof value === "object" && value !== null && "apiVersion" in value && "kind" in value) {
    if (value.kind === "List" && "items" in value && Array.isArray(value.items)) return value.items.flatMap((item: unknown) => flatten(item, index));
    if ("metadata" in value) return [value as KubeObject];
  }
  throw new MeshError("KUBE_INVALID", `document ${index + 1} is not a Kubernetes object: it needs apiVersion, kind and metadata`);
}

/** Applies in the order of the text. A kind that is not served yet, because its definition was only just applied, is waited for. */
export async function applyManifests(client: KubeClient, text: string, options: ApplyManifestsOptions): Promise<KubeObject[]> {
  const types = new TypeFinder(client, options);
  const applied: KubeObject[] = [];
  for (const object of parseManifests(text)) {
    const type = await types.find(object);
    const { namespace = "default" } = object.metadata;
    const placed = type.namespaced ? { ...object, metadata: { ...object.metadata, namespace } } : object;
    applied.push(await client.apply(type, placed, { fieldManager: options.fieldManager, force: true }));
  }
  return applied;
}

/** Which resource a kind is, asked of the server once per group and version. */
class TypeFinder {
  readonly #client: KubeClient;
  readonly #options: ApplyManifestsOptions;
  readonly #known = new Map<string, ResourceType>();

  constructor(client: KubeClient, options: ApplyManifestsOptions) {
    this.#client = client;
    this.#options = options;
  }

  async find({ apiVersion = "", kind = "" }: KubeObject): Promise<ResourceType> {
    const { clock = systemClock, timeoutMs = definitionTimeoutMs, signal = never } = this.#options;
    const deadline = clock.monotonic() + timeoutMs;
    for (;;) {
      const known = this.#known.get(`${apiVersion}/${kind}`);
      if (known !== undefined) return known;
      await this.#discover(apiVersion);
      if (this.#known.has(`${apiVersion}/${kind}`)) continue;
      if (clock.monotonic() >= deadline)
        throw new MeshError("KUBE_NOT_FOUND", `the API server does not serve ${kind} of ${apiVersion}; is its definition installed?`);
      await clock.sleep(retryMs, { signal });
    }
  }

  async #discover(apiVersion: string): Promise<void> {
    const [group = "", version = ""] = apiVersion.includes("/") ? apiVersion.split("/", 2) : ["", apiVersion];
    try {
      const path = group === "" ? `/api/${version}` : `/apis/${group}/${version}`;
      const { resources = [] } = await this.#client.request<{ resources?: { name: string; kind: string; namespaced: boolean }[] }>("GET", path);
      for (const { name, kind, namespaced } of resources) {
        if (!name.includes("/")) this.#known.set(`${apiVersion}/${kind}`, { group, version, plural: name, kind, namespaced });
      }
    } catch (thrown) {
      // The group appears with its first definition.
      if (!(thrown instanceof MeshError) || thrown.code !== "KUBE_NOT_FOUND") throw thrown;
    }
  }
}
