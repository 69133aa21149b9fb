/** What every controller is given: the API, the shared collections, and the few ways they act on them. */
import { createHash } from "node:crypto";
import { type Collection, type KubeClient, type KubeObject, objectKey, type ResourceType } from "@fairway/kube";
import { type Clock, errorCode, type Logger } from "@fairway/runtime";
import type { EventRecorder } from "../kubelet/events.ts";
import {
  type ConfigMap,
  configMaps,
  type DaemonSet,
  type Deployment,
  daemonSets,
  deployments,
  type EndpointSlice,
  endpointSlices,
  type Job,
  jobs,
  type NodeObject,
  nodes,
  type Pod,
  pods,
  type ReplicaSet,
  replicaSets,
  type Secret,
  type Service,
  type StatefulSet,
  secrets,
  services,
  statefulSets,
} from "../resources.ts";

export interface ClusterCollections extends AsyncDisposable {
  readonly pods: Collection<Pod>;
  readonly nodes: Collection<NodeObject>;
  readonly services: Collection<Service>;
  readonly endpointSlices: Collection<EndpointSlice>;
  readonly configMaps: Collection<ConfigMap>;
  readonly secrets: Collection<Secret>;
  readonly deployments: Collection<Deployment>;
  readonly replicaSets: Collection<ReplicaSet>;
  readonly daemonSets: Collection<DaemonSet>;
  readonly statefulSets: Collection<StatefulSet>;
  readonly jobs: Collection<Job>;
  readonly synced: Promise<unknown>;
}

/** One watch per kind for the whole process, as an informer cache is shared by the controllers of a real cluster. */
export function openCollections(client: KubeClient): ClusterCollections {
  const open: AsyncDisposable[] = [];
  const watch = <T extends KubeObject>(type: ResourceType<T>): Collection<T> => {
    const collection = client.collection(type);
    open.push(collection);
    return collection;
  };
  const all = {
    pods: watch(pods),
    nodes: watch(nodes),
    services: watch(services),
    endpointSlices: watch(endpointSlices),
    configMaps: watch(configMaps),
    secrets: watch(secrets),
    deployments: watch(deployments),
    replicaSets: watch(replicaSets),
    daemonSets: watch(daemonSets),
    statefulSets: watch(statefulSets),
    jobs: watch(jobs),
  };
  return {
    ...all,
    synced: Promise.all(Object.values(all).map(({ synced }) => synced)),
    [Symbol.asyncDispose]: async () => void (await Promise.all(open.map((collection) => collection[Symbol.asyncDispose]()))),
  };
}

export interface ControllerContext {
  readonly client: KubeClient;
  readonly collections: ClusterCollections;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly log: Logger;
  /** Five characters, as generated names end with. */
  readonly suffix: () => string;
}

export type Controller = AsyncDisposable;

/** A write should show in the collection well within this. */
const visibleWithinMs = 5_000;

/** Waits until a write shows in the collection, so that the next look does not repeat it. Gives up silently: the next look is then a bit early. */
export function untilVisible<T>({ clock }: ControllerContext, collection: Collection<T>, key: string, seen: (object: T | undefined) => boolean): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      subscription[Symbol.dispose]();
      timer[Symbol.dispose]();
      resolve();
    };
    const timer = clock.schedule(visibleWithinMs, () => done());
    const subscription = collection.subscribe(() => {
      if (seen(collection.get(key))) done();
    });
    if (seen(collection.get(key))) done();
  });
}

/** Creates an object and waits until it is seen. One that exists already is what was wanted. */
export async function createSeen<T extends KubeObject>(context: ControllerContext, type: ResourceType<T>, collection: Collection<T>, object: T): Promise<void> {
  try {
    await context.client.create(type, object);
  } catch (thrown) {
    if (errorCode(thrown) !== "KUBE_CONFLICT") throw thrown;
  }
  await untilVisible(context, collection, objectKey(object), (seen) => seen !== undefined);
}

/** Deletes a pod and waits until it is seen to leave. */
export async function deletePod(context: ControllerContext, pod: Pod): Promise<void> {
  try {
    await context.client.delete(pods, pod.metadata.name, pod.metadata.namespace);
  } catch (thrown) {
    if (errorCode(thrown) !== "KUBE_NOT_FOUND") throw thrown;
  }
  await untilVisible(
    context,
    context.collections.pods,
    objectKey(pod),
    (seen) => seen?.metadata.uid !== pod.metadata.uid || seen?.metadata.deletionTimestamp !== undefined,
  );
}

/** Writes a status when it differs from what is there. */
export async function writeStatus<T extends KubeObject & { status?: unknown }>(
  { client }: ControllerContext,
  type: ResourceType<T>,
  object: T,
  status: Readonly<Record<string, unknown>>,
): Promise<void> {
  if (canonical({ ...(object.status ?? {}), ...status }) === canonical(object.status ?? {})) return;
  try {
    await client.mergePatch(type, object.metadata.name, object.metadata.namespace, { status }, { subresource: "status" });
  } catch (thrown) {
    if (errorCode(thrown) !== "KUBE_NOT_FOUND") throw thrown;
  }
}

/** One requirement of a node selector term. An operator it does not know is not satisfied. */
export function satisfies(
  { key, operator, values = [] }: { key: string; operator: string; values?: string[] },
  labels: Readonly<Record<string, string>>,
): boolean {
  const value = labels[key];
  switch (operator) {
    case "In":
      return value !== undefined && values.includes(value);
    case "NotIn":
      return value === undefined || !values.includes(value);
    case "Exists":
      return value !== undefined;
    case "DoesNotExist":
      return value === undefined;
    case "Gt":
      return Number(value) > Number(values[0]);
    case "Lt":
      return Number(value) < Number(values[0]);
    default:
      return false;
  }
}

/** A short stable name for a value: what marks the pods of one revision of a template. */
export function revisionHash(value: unknown): string {
  const digest = createHash("sha256").update(canonical(value)).digest();
  return [...digest.subarray(0, 10)].map((byte) => revisionAlphabet[byte % revisionAlphabet.length]).join("");
}

/** JSON with sorted keys: equal values give equal text. */
export function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) =>
    typeof part === "object" && part !== null && !Array.isArray(part) ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1))) : part,
  );
}

/** Kubernetes' alphabet for generated names: no vowels, no look-alikes. */
export const revisionAlphabet = "bcdfghjklmnpqrstvwxz2456789";

/** A count or a share of `total`, as `maxSurge` and `maxUnavailable` are given. */
export function countOf(value: number | string | undefined, total: number, fallback: number | string, round: "up" | "down"): number {
  const given = value ?? fallback;
  if (typeof given === "number") return given;
  const percent = /^(\d+)%$/.exec(given)?.[1];
  if (percent === undefined) return Number.isInteger(Number(given)) ? Number(given) : 0;
  const exact = (Number(percent) * total) / 100;
  return round === "up" ? Math.ceil(exact) : Math.floor(exact);
}
