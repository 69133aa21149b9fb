/** An API server in memory for the tests of this package: objects by type, collections that follow, and tokens that are somebody's. */
import {
  apiVersionOf,
  type Collection,
  type KubeClient,
  type KubeObject,
  MutableCollection,
  objectKey,
  type ResourceType,
  type Selection,
} from "@fairway/kube";
import { MeshError } from "@fairway/runtime";

export interface TokenUser {
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly podName?: string;
  readonly podUid?: string;
  readonly audiences?: readonly string[];
  /** Why the API server does not accept it, in its words. */
  readonly refused?: string;
}

interface ReviewBody {
  spec: { token: string; audiences: string[] };
}

export class FakeKube implements KubeClient {
  readonly server: string = "https://fake";
  readonly tokens: Map<string, TokenUser> = new Map();
  /** Every write: verb, key and body. */
  readonly writes: { verb: string; type: string; key: string; object: unknown; subresource: string | undefined }[] = [];
  reviews = 0;
  /** While set, every call fails as if the server were away. */
  away = false;
  readonly #stores = new Map<string, MutableCollection<KubeObject>>();
  #version = 0;

  store<T extends KubeObject>(type: ResourceType<T>): MutableCollection<T> {
    const known = this.#stores.get(type.plural) ?? new MutableCollection<KubeObject>(objectKey);
    this.#stores.set(type.plural, known);
    return known as unknown as MutableCollection<T>;
  }

  set<T extends KubeObject>(type: ResourceType<T>, object: T): T {
    const stored = { ...object, apiVersion: apiVersionOf(type), kind: type.kind, metadata: { ...object.metadata, resourceVersion: String(++this.#version) } };
    this.store(type).set(stored);
    return stored;
  }

  async get<T extends KubeObject>(type: ResourceType<T>, name: string, namespace?: string): Promise<T> {
    this.#reachable();
    const found = this.store(type).get(namespace === undefined ? name : `${namespace}/${name}`);
    if (found === undefined) throw new MeshError("KUBE_NOT_FOUND", `${type.plural} ${name} not found`);
    return found;
  }

  async list<T extends KubeObject>(type: ResourceType<T>): Promise<T[]> {
    this.#reachable();
    return [...this.store(type).list()];
  }

  async create<T extends KubeObject>(type: ResourceType<T>, object: T): Promise<T> {
    this.#reachable();
    if (this.store(type).get(objectKey(object)) !== undefined) throw new MeshError("KUBE_CONFLICT", "already exists");
    this.#wrote("create", type, object);
    return this.set(type, object);
  }

  async replace<T extends KubeObject>(type: ResourceType<T>, object: T): Promise<T> {
    const stored = await this.get(type, object.metadata.name, object.metadata.namespace);
    if (stored.metadata.resourceVersion !== object.metadata.resourceVersion) throw new MeshError("KUBE_CONFLICT", "the object was changed");
    this.#wrote("replace", type, object);
    return this.set(type, object);
  }

  async mergePatch<T extends KubeObject>(
    type: ResourceType<T>,
    name: string,
    namespace: string | undefined,
    patch: unknown,
    options: { subresource?: "status" } = {},
  ): Promise<T> {
    const stored = await this.get(type, name, namespace);
    const wanted = (patch as Partial<KubeObject>).metadata?.resourceVersion ?? stored.metadata.resourceVersion;
    if (stored.metadata.resourceVersion !== wanted) throw new MeshError("KUBE_CONFLICT", "the object was changed");
    const object = merged(stored, patch) as T;
    this.#wrote("patch", type, object, options.subresource);
    return this.set(type, object);
  }

  async apply<T extends KubeObject>(type: ResourceType<T>, object: T, options: { subresource?: "status" }): Promise<T> {
    this.#reachable();
    this.#wrote("apply", type, object, options.subresource);
    const known = this.store(type).get(objectKey(object));
    if (options.subresource !== undefined && known === undefined) throw new MeshError("KUBE_NOT_FOUND", "not found");
    return this.set(type, merged(known ?? {}, object) as T);
  }

  async delete<T extends KubeObject>(type: ResourceType<T>, name: string, namespace?: string): Promise<void> {
    this.store(type).delete(namespace === undefined ? name : `${namespace}/${name}`);
  }

  async request<R>(method: string, path: string, body?: unknown): Promise<R> {
    this.#reachable();
    if (method !== "POST" || path !== "/apis/authentication.k8s.io/v1/tokenreviews") throw new MeshError("KUBE_NOT_FOUND", path);
    this.reviews++;
    const { token, audiences } = (body as ReviewBody).spec;
    const user = this.tokens.get(token);
    const granted = audiences.filter((audience) => (user?.audiences ?? ["istio-ca"]).includes(audience));
    if (user?.refused !== undefined) return { status: { authenticated: false, error: user.refused } } as R;
    if (user === undefined || granted.length === 0) return { status: { authenticated: false, error: "token is not known" } } as R;
    const { namespace, serviceAccount, podName, podUid } = user;
    const extra = {
      ...(podName === undefined ? {} : { "authentication.kubernetes.io/pod-name": [podName] }),
      ...(podUid === undefined ? {} : { "authentication.kubernetes.io/pod-uid": [podUid] }),
    };
    const groups = ["system:serviceaccounts", `system:serviceaccounts:${namespace}`];
    return {
      status: { authenticated: true, audiences: granted, user: { username: `system:serviceaccount:${namespace}:${serviceAccount}`, groups, extra } },
    } as R;
  }

  /** Follows the store; a field selector on the name is honoured. */
  collection<T extends KubeObject>(type: ResourceType<T>, { namespace, fieldSelector }: Selection = {}): Collection<T> & AsyncDisposable {
    const store = this.store(type);
    const wanted = fieldSelector?.replace(/^metadata\.name=/, "");
    const accepts = ({ metadata }: KubeObject): boolean =>
      (wanted === undefined || metadata.name === wanted) && (namespace === undefined || metadata.namespace === namespace);
    const view = new MutableCollection<T>(objectKey, [...store.list()].filter(accepts));
    const subscription = store.subscribe((events) => {
      for (const event of events) {
        if (!accepts(event.object)) continue;
        if (event.type === "deleted") view.delete(event.key);
        else view.set(event.object);
      }
    });
    return Object.assign(view, { [Symbol.asyncDispose]: async () => subscription[Symbol.dispose]() });
  }

  #reachable(): void {
    if (this.away) throw new MeshError("KUBE_UNAVAILABLE", "the fake API server is away");
  }

  #wrote<T extends KubeObject>(verb: string, type: ResourceType<T>, object: T, subresource?: string): void {
    this.writes.push({ verb, type: type.plural, key: objectKey(object), object, subresource });
  }
}

/** JSON merge patch (RFC 7396). */
function merged(target: unknown, patch: unknown): unknown {
  if (typeof patch !== "object" || patch === null || Array.isArray(patch)) return patch;
  const result: Record<string, unknown> = typeof target === "object" && target !== null && !Array.isArray(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = merged(result[key], value);
  }
  return result;
}
