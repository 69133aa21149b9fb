/** Kubernetes objects as collections that are always current. */

export interface ObjectMeta {
  name: string;
  namespace?: string;
  uid?: string;
  resourceVersion?: string;
  generation?: number;
  creationTimestamp?: string;
  deletionTimestamp?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  ownerReferences?: { apiVersion: string; kind: string; name: string; uid: string; controller?: boolean; blockOwnerDeletion?: boolean }[];
  finalizers?: string[];
  generateName?: string;
}

export interface KubeObject {
  apiVersion?: string;
  kind?: string;
  metadata: ObjectMeta;
}

/** Which objects: `{ group: "", version: "v1", plural: "pods", kind: "Pod", namespaced: true }`. */
export interface ResourceType<T extends KubeObject = KubeObject> {
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly kind: string;
  readonly namespaced: boolean;
  /** Only carries the object type. */
  readonly __object?: T;
}

export type CollectionEvent<T> =
  | { readonly type: "added"; readonly key: string; readonly object: T }
  | { readonly type: "updated"; readonly key: string; readonly object: T; readonly previous: T }
  | { readonly type: "deleted"; readonly key: string; readonly object: T };

/** A keyed set with changes; raw ones come from a reflector, derived ones from other collections. Key: `namespace/name`, or `name`. */
export interface Collection<T> {
  /** Resolves when the first full list is in. Rejects with KUBE_CLOSED when disposed before that. */
  readonly synced: Promise<void>;
  get(key: string): T | undefined;
  list(): Iterable<T>;
  entries(): Iterable<[string, T]>;
  /** Batches of events in order; not called for what is already there. */
  subscribe(listener: (events: readonly CollectionEvent<T>[]) => void): Disposable;
}

export interface Selection {
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
}

/** The Kubernetes API, by resource type. Errors are MeshErrors: KUBE_NOT_FOUND, KUBE_CONFLICT, KUBE_FORBIDDEN, KUBE_INVALID, KUBE_UNAVAILABLE. */
export interface KubeClient {
  readonly server: string;
  get<T extends KubeObject>(type: ResourceType<T>, name: string, namespace?: string): Promise<T>;
  list<T extends KubeObject>(type: ResourceType<T>, options?: Selection): Promise<T[]>;
  create<T extends KubeObject>(type: ResourceType<T>, object: T): Promise<T>;
  replace<T extends KubeObject>(type: ResourceType<T>, object: T, options?: { subresource?: "status" }): Promise<T>;
  mergePatch<T extends KubeObject>(
    type: ResourceType<T>,
    name: string,
    namespace: string | undefined,
    patch: unknown,
    options?: { subresource?: "status" },
  ): Promise<T>;
  /** Server-side apply. */
  apply<T extends KubeObject>(type: ResourceType<T>, object: T, options: { fieldManager: string; force?: boolean; subresource?: "status" }): Promise<T>;
  delete<T extends KubeObject>(type: ResourceType<T>, name: string, namespace?: string, options?: { gracePeriodSeconds?: number }): Promise<void>;
  /** Any other call (TokenReview, TokenRequest, logs); JSON in and out. */
  request<R>(method: string, path: string, body?: unknown): Promise<R>;
  /**
   * A supervised list/watch: survives resets, 410 and 500 with jittered backoff; never stops silently. Dispose to stop.
   * `reduce` keeps only what the caller reads; it runs before the object is stored. A type that the server does not serve is an empty collection.
   */
  collection<T extends KubeObject>(type: ResourceType<T>, options?: Selection & { reduce?: (object: T) => T }): Collection<T> & AsyncDisposable;
}

/** `namespace/name`, or `name` for objects of the cluster. */
export function objectKey({ metadata: { name, namespace } }: KubeObject): string {
  return namespace === undefined || namespace === "" ? name : `${namespace}/${name}`;
}
