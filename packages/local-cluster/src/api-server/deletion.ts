/** Deleting one object: preconditions, grace periods of pods, finalizers, and the three propagation policies. */
import { ApiError } from "./api-error.ts";
import { isObject, type Json, objectAt } from "./json.ts";
import type { KubeObject } from "./kube-object.ts";
import type { ResourceType } from "./resource-types.ts";
import type { Storage } from "./storage.ts";

export type Propagation = "Background" | "Foreground" | "Orphan";

export interface DeleteOptions {
  readonly propagation: Propagation;
  readonly gracePeriodSeconds?: number;
  readonly uid?: string;
  readonly resourceVersion?: string;
  readonly dryRun: boolean;
}

export const foregroundFinalizer = "foregroundDeletion";
export const orphanFinalizer = "orphan";

/** Parses `DeleteOptions` from the body and the query; the query fills what the body leaves out. */
export function parseDeleteOptions(body: Json | undefined, query: URLSearchParams): DeleteOptions {
  const given = isObject(body) ? body : {};
  const grace = given["gracePeriodSeconds"] ?? numberFrom(query.get("gracePeriodSeconds"));
  const propagation = given["propagationPolicy"] ?? query.get("propagationPolicy") ?? (given["orphanDependents"] === true ? "Orphan" : "Background");
  const preconditions = objectAt(given["preconditions"]);
  if (grace !== undefined && grace !== null && !(typeof grace === "number" && Number.isSafeInteger(grace)))
    throw ApiError.badRequest("gracePeriodSeconds must be an integer");
  if (propagation !== "Background" && propagation !== "Foreground" && propagation !== "Orphan")
    throw ApiError.badRequest("propagationPolicy must be Background, Foreground or Orphan");
  return {
    propagation,
    ...(typeof grace === "number" ? { gracePeriodSeconds: grace } : {}),
    ...(typeof preconditions["uid"] === "string" ? { uid: preconditions["uid"] } : {}),
    ...(typeof preconditions["resourceVersion"] === "string" ? { resourceVersion: preconditions["resourceVersion"] } : {}),
    dryRun: query.getAll("dryRun").includes("All") || (Array.isArray(given["dryRun"]) && given["dryRun"].includes("All")),
  };
}

function numberFrom(text: string | null): number | undefined {
  return text === null || text === "" ? undefined : Number(text);
}

export interface Deleted {
  readonly object: KubeObject;
  /** False when the object stays for its grace period or its finalizers. */
  readonly gone: boolean;
}

/** Deletes or begins to delete. */
export function deleteObject(storage: Storage, type: ResourceType, live: KubeObject, options: DeleteOptions, nowMs: number): Deleted {
  const { metadata } = live;
  if (options.uid !== undefined && options.uid !== metadata.uid) {
    throw ApiError.conflict(type, metadata.name, `Precondition failed: UID in precondition: ${options.uid.slice(0, 64)}, UID in object meta: ${metadata.uid}`);
  }
  if (options.resourceVersion !== undefined && options.resourceVersion !== metadata.resourceVersion) throw ApiError.staleVersion(type, metadata.name);
  const grace = graceOf(type, live, options);
  const finalizers = new Set(metadata.finalizers ?? []);
  if (options.propagation === "Foreground") finalizers.add(foregroundFinalizer);
  if (options.propagation === "Orphan") finalizers.add(orphanFinalizer);
  if (options.propagation === "Background") finalizers.delete(foregroundFinalizer);
  if (grace === 0 && finalizers.size === 0 && type.table !== "namespaces") {
    if (options.dryRun) return { object: live, gone: true };
    return { object: storage.remove(type.table, metadata.namespace ?? "", metadata.name) ?? live, gone: true };
  }
  const seconds = Math.min(grace, metadata.deletionGracePeriodSeconds ?? grace);
  const unchanged =
    metadata.deletionTimestamp !== undefined && seconds === metadata.deletionGracePeriodSeconds && finalizers.size === (metadata.finalizers ?? []).length;
  if (unchanged) return { object: live, gone: false };
  const ends = new Date(Math.floor(nowMs / 1000) * 1000 + seconds * 1000).toISOString();
  const keepsEnd = metadata.deletionTimestamp !== undefined && seconds === metadata.deletionGracePeriodSeconds;
  const object: KubeObject = {
    ...live,
    metadata: {
      ...metadata,
      deletionTimestamp: keepsEnd ? (metadata.deletionTimestamp ?? ends) : `${ends.slice(0, 19)}Z`,
      deletionGracePeriodSeconds: seconds,
      ...(metadata.generation === undefined || metadata.deletionTimestamp !== undefined ? {} : { generation: metadata.generation + 1 }),
      ...(finalizers.size === 0 ? {} : { finalizers: [...finalizers] }),
    },
    ...(type.table === "namespaces" ? { status: { ...objectAt(live["status"]), phase: "Terminating" } } : {}),
  };
  return { object: options.dryRun ? object : storage.put(type.table, object), gone: false };
}

/** Only pods that run somewhere get time to end; everything else goes at once. */
function graceOf(type: ResourceType, live: KubeObject, { gracePeriodSeconds }: DeleteOptions): number {
  if (type.table !== "pods") return 0;
  const spec = objectAt(live["spec"]);
  const phase = objectAt(live["status"])["phase"];
  if (spec["nodeName"] === undefined || spec["nodeName"] === "" || phase === "Succeeded" || phase === "Failed") return 0;
  const own = typeof spec["terminationGracePeriodSeconds"] === "number" ? spec["terminationGracePeriodSeconds"] : 30;
  return Math.max(0, gracePeriodSeconds ?? own);
}

/** Removes an object whose last finalizer this write took away; returns nothing when the object stays. */
export function finishDeletion(storage: Storage, type: ResourceType, next: KubeObject): KubeObject | undefined {
  const { metadata } = next;
  if (metadata.deletionTimestamp === undefined || (metadata.finalizers ?? []).length > 0) return undefined;
  if (type.table === "namespaces" || (metadata.deletionGracePeriodSeconds ?? 0) > 0) return undefined;
  storage.put(type.table, next);
  return storage.remove(type.table, metadata.namespace ?? "", metadata.name);
}
