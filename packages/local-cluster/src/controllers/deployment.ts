/** Deployments: one ReplicaSet per revision of the template, exchanged step by step, with the status that `kubectl rollout status` reads. */
import { objectKey } from "@fairway/kube";
import { errorCode } from "@fairway/runtime";
import { type Condition, controllerOf, type Deployment, deployments, ownerReference, type ReplicaSet, replicaSets } from "../resources.ts";
import { type Controller, type ControllerContext, countOf, createSeen, revisionHash, untilVisible, writeStatus } from "./context.ts";
import { ownedQueue } from "./owned-queue.ts";
import { rolloutStep } from "./rollout-step.ts";

const hashLabel = "pod-template-hash";
const revisionAnnotation = "deployment.kubernetes.io/revision";
const defaultHistory = 10;

export function runDeployments(context: ControllerContext): Controller {
  const { collections } = context;
  return ownedQueue(context, {
    name: "deployment",
    objects: collections.deployments,
    owned: [collections.replicaSets],
    reconcile: (object) => reconcile(context, object),
  });
}

async function reconcile(context: ControllerContext, object: Deployment): Promise<void> {
  const hash = revisionHash(object.spec.template);
  if (object.spec.paused !== true) {
    await ensureCurrent(context, object, hash);
    await advance(context, object, hash);
    await forgetHistory(context, object, hash);
  }
  await report(context, object, hash);
}

function ownSets(context: ControllerContext, object: Deployment): ReplicaSet[] {
  return [...context.collections.replicaSets.list()].filter((set) => controllerOf(set) === object.metadata.uid && set.metadata.deletionTimestamp === undefined);
}

function isCurrent(set: ReplicaSet, hash: string): boolean {
  return set.metadata.labels?.[hashLabel] === hash;
}

/** The ReplicaSet of the current template exists and carries the highest revision. */
async function ensureCurrent(context: ControllerContext, object: Deployment, hash: string): Promise<void> {
  const sets = ownSets(context, object);
  const current = sets.find((set) => isCurrent(set, hash));
  const highestOther = Math.max(0, ...sets.filter((set) => set !== current).map(revisionOf));
  if (current !== undefined && revisionOf(current) > highestOther) return;
  const revision = String(highestOther + 1);
  if (current !== undefined) {
    await context.client.mergePatch(replicaSets, current.metadata.name, current.metadata.namespace, {
      metadata: { annotations: { [revisionAnnotation]: revision } },
    });
  } else {
    const labels = { ...object.spec.template.metadata?.labels, [hashLabel]: hash };
    const { template, selector } = object.spec;
    await createSeen(context, replicaSets, context.collections.replicaSets, {
      apiVersion: "apps/v1",
      kind: "ReplicaSet",
      metadata: {
        name: `${object.metadata.name}-${hash}`,
        ...(object.metadata.namespace === undefined ? {} : { namespace: object.metadata.namespace }),
        labels,
        annotations: { [revisionAnnotation]: revision },
        ownerReferences: [ownerReference("apps/v1", "Deployment", object)],
      },
      spec: {
        replicas: 0,
        selector: { ...selector, matchLabels: { ...selector.matchLabels, [hashLabel]: hash } },
        template: { ...structuredClone(template), metadata: { ...template.metadata, labels } },
      },
    });
  }
  await context.client.mergePatch(deployments, object.metadata.name, object.metadata.namespace, {
    metadata: { annotations: { [revisionAnnotation]: revision } },
  });
}

async function advance(context: ControllerContext, object: Deployment, hash: string): Promise<void> {
  const sets = ownSets(context, object);
  const current = sets.find((set) => isCurrent(set, hash));
  if (current === undefined) return;
  const old = sets.filter((set) => set !== current && (set.spec.replicas ?? 0) > 0);
  const replicas = object.spec.replicas ?? 1;
  if (object.spec.strategy?.type === "Recreate") {
    for (const set of old) await scale(context, set, 0);
    const left = sets.filter((set) => set !== current).some((set) => podsOf(context, set) > 0);
    if (!left) await scale(context, current, replicas);
    return;
  }
  const { maxSurge, maxUnavailable } = object.spec.strategy?.rollingUpdate ?? {};
  const limits = { replicas, maxSurge: countOf(maxSurge, replicas, "25%", "up"), maxUnavailable: countOf(maxUnavailable, replicas, "25%", "down") };
  for (const [name, wanted] of rolloutStep(asRolloutSet(current), old.map(asRolloutSet), limits)) {
    const set = sets.find((candidate) => candidate.metadata.name === name);
    if (set !== undefined) await scale(context, set, wanted);
  }
}

async function scale(context: ControllerContext, set: ReplicaSet, replicas: number): Promise<void> {
  if ((set.spec.replicas ?? 0) === replicas) return;
  await context.client.mergePatch(replicaSets, set.metadata.name, set.metadata.namespace, { spec: { replicas } });
  await untilVisible(context, context.collections.replicaSets, objectKey(set), (seen) => seen === undefined || seen.spec.replicas === replicas);
}

async function forgetHistory(context: ControllerContext, object: Deployment, hash: string): Promise<void> {
  const idle = ownSets(context, object)
    .filter((set) => !isCurrent(set, hash) && (set.spec.replicas ?? 0) === 0 && podsOf(context, set) === 0)
    .sort((a, b) => revisionOf(b) - revisionOf(a));
  for (const set of idle.slice(object.spec.revisionHistoryLimit ?? defaultHistory)) {
    try {
      await context.client.delete(replicaSets, set.metadata.name, set.metadata.namespace);
    } catch (thrown) {
      if (errorCode(thrown) !== "KUBE_NOT_FOUND") throw thrown;
    }
  }
}

async function report(context: ControllerContext, object: Deployment, hash: string): Promise<void> {
  const sets = ownSets(context, object);
  const sum = (count: (set: ReplicaSet) => number | undefined, among = sets): number => among.reduce((total, set) => total + (count(set) ?? 0), 0);
  const updated = sets.filter((set) => isCurrent(set, hash));
  const wanted = object.spec.replicas ?? 1;
  const replicas = sum((set) => set.status?.replicas);
  const available = sum((set) => set.status?.availableReplicas);
  const updatedReplicas = sum((set) => set.status?.replicas, updated);
  const minimum = wanted - countOf(object.spec.strategy?.rollingUpdate?.maxUnavailable, wanted, "25%", "down");
  const complete = updatedReplicas === wanted && replicas === wanted && available >= wanted;
  const before: Condition[] = Array.isArray(object.status?.["conditions"]) ? object.status["conditions"] : [];
  const now = new Date(context.clock.now()).toISOString().replace(/\.\d+Z$/, "Z");
  const condition = (type: string, status: boolean, reason: string, message: string): Condition => {
    const old = before.find((candidate) => candidate.type === type);
    const text = status ? "True" : "False";
    const unchanged = old !== undefined && old.status === text && old.reason === reason;
    return unchanged
      ? old
      : { type, status: text, reason, message, lastTransitionTime: old?.status === text ? (old.lastTransitionTime ?? now) : now, lastUpdateTime: now };
  };
  await writeStatus(context, deployments, object, {
    observedGeneration: object.metadata.generation ?? 1,
    replicas,
    updatedReplicas,
    readyReplicas: sum((set) => set.status?.readyReplicas),
    availableReplicas: available,
    unavailableReplicas: Math.max(0, wanted - available),
    conditions: [
      available >= Math.max(0, minimum)
        ? condition("Available", true, "MinimumReplicasAvailable", "Deployment has minimum availability.")
        : condition("Available", false, "MinimumReplicasUnavailable", "Deployment does not have minimum availability."),
      complete
        ? condition("Progressing", true, "NewReplicaSetAvailable", `ReplicaSet "${object.metadata.name}-${hash}" has successfully progressed.`)
        : condition("Progressing", true, "ReplicaSetUpdated", `ReplicaSet "${object.metadata.name}-${hash}" is progressing.`),
    ],
  });
}

function podsOf({ collections }: ControllerContext, set: ReplicaSet): number {
  return [...collections.pods.list()].filter((pod) => controllerOf(pod) === set.metadata.uid).length;
}

function revisionOf(set: ReplicaSet): number {
  return Number(set.metadata.annotations?.[revisionAnnotation] ?? "0") || 0;
}

function asRolloutSet(set: ReplicaSet): { name: string; replicas: number; available: number } {
  return { name: set.metadata.name, replicas: set.spec.replicas ?? 0, available: set.status?.availableReplicas ?? 0 };
}
