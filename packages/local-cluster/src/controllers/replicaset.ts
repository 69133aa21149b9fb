/** ReplicaSets: as many pods as asked for. Finished pods count as lost and stay for their logs; pods without an owner are not adopted. */
import { controllerOf, isFinished, isReady, type Pod, pods, type ReplicaSet, replicaSets } from "../resources.ts";
import { type Controller, type ControllerContext, createSeen, deletePod, writeStatus } from "./context.ts";
import { ownedQueue } from "./owned-queue.ts";
import { podFromTemplate } from "./pod-from-template.ts";

export function runReplicaSets(context: ControllerContext): Controller {
  const { collections } = context;
  return ownedQueue(context, {
    name: "replicaset",
    objects: collections.replicaSets,
    owned: [collections.pods],
    reconcile: (object) => reconcile(context, object),
  });
}

async function reconcile(context: ControllerContext, object: ReplicaSet): Promise<void> {
  const { collections, suffix } = context;
  const own = [...collections.pods.list()].filter((pod) => controllerOf(pod) === object.metadata.uid);
  const active = own.filter((pod) => !isFinished(pod) && pod.metadata.deletionTimestamp === undefined);
  const wanted = object.spec.replicas ?? 1;
  for (let count = active.length; count < wanted; count += 1) {
    const name = `${object.metadata.name}-${suffix()}`;
    await createSeen(
      context,
      pods,
      collections.pods,
      podFromTemplate({ template: object.spec.template, owner: object, apiVersion: "apps/v1", kind: "ReplicaSet", name }),
    );
  }
  for (const pod of expendable(active).slice(0, Math.max(0, active.length - wanted))) await deletePod(context, pod);
  const now = [...collections.pods.list()].filter(
    (pod) => controllerOf(pod) === object.metadata.uid && !isFinished(pod) && pod.metadata.deletionTimestamp === undefined,
  );
  const ready = now.filter(isReady).length;
  await writeStatus(context, replicaSets, object, {
    replicas: now.length,
    fullyLabeledReplicas: now.length,
    readyReplicas: ready,
    availableReplicas: ready,
    observedGeneration: object.metadata.generation ?? 1,
  });
}

/** Whom to let go first: the unscheduled, the not ready, the youngest. */
export function expendable(pods: readonly Pod[]): Pod[] {
  const rank = (pod: Pod): number => (pod.spec.nodeName === undefined ? 0 : isReady(pod) ? 2 : 1);
  return pods.toSorted((a, b) => rank(a) - rank(b) || (b.metadata.creationTimestamp ?? "").localeCompare(a.metadata.creationTimestamp ?? ""));
}
