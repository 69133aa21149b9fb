/** Keeps the status of a kind's objects as it is wished. Only the leader does. */
import { type Collection, type KubeObject, type ResourceType, WorkQueue } from "@fairway/kube";
import type { Clock, Logger } from "@fairway/runtime";

export interface StatusQueueOptions<T extends KubeObject, Wish> {
  readonly type: ResourceType<T>;
  readonly objects: Collection<T>;
  /** By the key of their object. One that goes leaves what was written. */
  readonly wishes: Collection<Wish>;
  /** Called for each wish, and again when it changes; until it succeeds. */
  readonly write: (object: T, wish: Wish) => Promise<unknown>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Dispose to stop. */
export function keepStatusOf<T extends KubeObject, Wish>({ type, objects, wishes, write, clock, log }: StatusQueueOptions<T, Wish>): AsyncDisposable {
  const queue = new WorkQueue({
    name: `status of ${type.plural}`,
    log,
    clock,
    handle: async (key) => {
      const object = objects.get(key);
      const wish = wishes.get(key);
      if (object !== undefined && wish !== undefined) await write(object, wish);
    },
  });
  const subscription = wishes.subscribe((events) => {
    for (const { type: what, key } of events) if (what !== "deleted") queue.add(key);
  });
  for (const [key] of wishes.entries()) queue.add(key);
  return {
    [Symbol.asyncDispose]: async () => {
      subscription[Symbol.dispose]();
      await queue[Symbol.asyncDispose]();
    },
  };
}
