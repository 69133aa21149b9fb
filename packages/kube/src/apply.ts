/** Server-side apply of what we own on objects that others own: status conditions. */
import type { KubeClient, KubeObject, ResourceType } from "./collection.ts";
import type { Condition } from "./resources/core.ts";

export interface ConditionWish {
  readonly type: string;
  readonly status: "True" | "False" | "Unknown";
  readonly reason: string;
  readonly message: string;
}

/** An object whose status carries conditions. */
export interface WithConditions extends KubeObject {
  status?: { conditions?: Condition[] };
}

export interface ApplyConditionsOptions {
  readonly fieldManager: string;
  /** Every type this manager may own on such objects; what is not wished for is pruned. */
  readonly owned: readonly string[];
  readonly now: Date;
}

/**
 * Makes the wished conditions those of this field manager on the object's status (controller contract 2.12).
 * Nothing is sent when the object already says the same; the transition time is kept while the status does not change.
 */
export async function applyConditions<T extends WithConditions>(
  client: KubeClient,
  type: ResourceType<T>,
  object: T,
  wishes: readonly ConditionWish[],
  { fieldManager, owned, now }: ApplyConditionsOptions,
): Promise<"unchanged" | "applied"> {
  const current = (object.status?.conditions ?? []).filter((condition) => owned.includes(condition.type));
  const conditions = datedConditions(wishes, current, { generation: object.metadata.generation, now });
  if (conditions.length === current.length && conditions.every((condition) => current.some((before) => same(before, condition)))) return "unchanged";
  const { name, namespace } = object.metadata;
  const body = { metadata: { name, ...(namespace === undefined ? {} : { namespace }) }, status: { conditions } } as KubeObject as T;
  await client.apply(type, body, { fieldManager, force: true, subresource: "status" });
  return "applied";
}

/** The wishes as conditions: about this generation, and with the time since which each has had its status. */
export function datedConditions(
  wishes: readonly ConditionWish[],
  current: readonly Condition[],
  { generation, now }: { readonly generation: number | undefined; readonly now: Date },
): Condition[] {
  return wishes.map((wish): Condition => {
    const before = current.find((condition) => condition.type === wish.type);
    const kept = before?.status === wish.status ? before.lastTransitionTime : undefined;
    return {
      ...wish,
      ...(generation === undefined ? {} : { observedGeneration: generation }),
      lastTransitionTime: kept ?? now.toISOString().replace(/\.\d+Z$/, "Z"),
    };
  });
}

function same(a: Condition, b: Condition): boolean {
  return a.type === b.type && a.status === b.status && a.reason === b.reason && a.message === b.message && a.observedGeneration === b.observedGeneration;
}
