/** A controller's work queue: a key per object, woken by the object itself and by the things it owns. */
import { type Collection, type KubeObject, objectKey, WorkQueue } from "@fairway/kube";
import { controllerOf } from "../resources.ts";
import type { Controller, ControllerContext } from "./context.ts";

export interface OwnedQueueOptions<T extends KubeObject> {
  readonly name: string;
  readonly objects: Collection<T>;
  /** Whose changes wake their controller. */
  readonly owned: readonly Collection<KubeObject>[];
  /** Anything else that may change every object's outcome. */
  readonly others?: readonly Collection<KubeObject>[];
  readonly reconcile: (object: T, signal: AbortSignal) => Promise<void>;
}

const retry = { initialMs: 100, maxMs: 5_000 };

/** Starts it; objects being deleted are left to the garbage collector. */
export function ownedQueue<T extends KubeObject>({ clock, log }: ControllerContext, options: OwnedQueueOptions<T>): Controller {
  const { name, objects, owned, others = [], reconcile } = options;
  const queue = new WorkQueue({
    name,
    log,
    clock,
    retry,
    handle: async (key, signal) => {
      const object = objects.get(key);
      if (object !== undefined && object.metadata.deletionTimestamp === undefined) await reconcile(object, signal);
    },
  });
  const subscriptions = [
    objects.subscribe((events) => {
      for (const { object } of events) queue.add(objectKey(object));
    }),
    ...owned.map((collection) =>
      collection.subscribe((events) => {
        for (const { object } of events) {
          const owner = object.metadata.ownerReferences?.find(({ controller }) => controller === true);
          const key = owner === undefined ? undefined : `${object.metadata.namespace}/${owner.name}`;
          if (key !== undefined && objects.get(key)?.metadata.uid === controllerOf(object)) queue.add(key);
        }
      }),
    ),
    ...others.map((collection) =>
      collection.subscribe(() => {
        for (const object of objects.list()) queue.add(objectKey(object));
      }),
    ),
  ];
  for (const object of objects.list()) queue.add(objectKey(object));
  return {
    async [Symbol.asyncDispose]() {
      for (const subscription of subscriptions) subscription[Symbol.dispose]();
      await queue[Symbol.asyncDispose]();
    },
  };
}
