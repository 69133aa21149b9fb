/** StatefulSets: pods with fixed names, started in order and ended in reverse. Claimed volumes are empty directories: nothing here outlives its pod. */
import { controllerOf, isFinished, isReady, type Pod, pods, type StatefulSet, statefulSets, type Volume } from "../resources.ts";
import { type Controller, type ControllerContext, createSeen, deletePod, revisionHash, writeStatus } from "./context.ts";
import { ownedQueue } from "./owned-queue.ts";
import { podFromTemplate } from "./pod-from-template.ts";

const revisionLabel = "controller-revision-hash";

export function runStatefulSets(context: ControllerContext): Controller {
  const { collections } = context;
  return ownedQueue(context, {
    name: "statefulset",
    objects: collections.statefulSets,
    owned: [collections.pods],
    reconcile: (object) => reconcile(context, object),
  });
}

async function reconcile(context: ControllerContext, object: StatefulSet): Promise<void> {
  const { collections } = context;
  const hash = revisionHash(object.spec.template);
  const wanted = object.spec.replicas ?? 1;
  const parallel = object.spec.podManagementPolicy === "Parallel";
  const own = new Map([...collections.pods.list()].filter((pod) => controllerOf(pod) === object.metadata.uid).map((pod) => [ordinalOf(object, pod), pod]));
  let settled = true;
  for (let ordinal = 0; ordinal < wanted && (settled || parallel); ordinal += 1) {
    const pod = own.get(ordinal);
    if (pod === undefined) await createSeen(context, pods, collections.pods, memberOf(object, ordinal, hash));
    else if (isFinished(pod)) await deletePod(context, pod);
    settled &&= pod !== undefined && isReady(pod) && pod.metadata.deletionTimestamp === undefined;
  }
  const surplus = [...own].filter(([ordinal]) => ordinal >= wanted).sort(([a], [b]) => b - a);
  const last = surplus[0]?.[1];
  if (last !== undefined && settled && last.metadata.deletionTimestamp === undefined) await deletePod(context, last);
  // One at a time from the end, each only while all others serve.
  const stale = [...own].filter(([ordinal, pod]) => ordinal < wanted && pod.metadata.labels?.[revisionLabel] !== hash).sort(([a], [b]) => b - a)[0]?.[1];
  if (settled && surplus.length === 0 && stale !== undefined) await deletePod(context, stale);
  const now = [...collections.pods.list()].filter((pod) => controllerOf(pod) === object.metadata.uid && pod.metadata.deletionTimestamp === undefined);
  const ready = now.filter(isReady).length;
  const updated = now.filter((pod) => pod.metadata.labels?.[revisionLabel] === hash).length;
  await writeStatus(context, statefulSets, object, {
    observedGeneration: object.metadata.generation ?? 1,
    replicas: now.length,
    readyReplicas: ready,
    availableReplicas: ready,
    currentReplicas: now.length,
    updatedReplicas: updated,
    updateRevision: `${object.metadata.name}-${hash}`,
    currentRevision: updated === now.length ? `${object.metadata.name}-${hash}` : `${object.metadata.name}-previous`,
  });
}

function memberOf(object: StatefulSet, ordinal: number, hash: string): Pod {
  const name = `${object.metadata.name}-${ordinal}`;
  const pod = podFromTemplate({
    template: object.spec.template,
    owner: object,
    apiVersion: "apps/v1",
    kind: "StatefulSet",
    name,
    labels: { [revisionLabel]: hash, "statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": String(ordinal) },
  });
  const claims: Volume[] = claimNames(object).map((claim) => ({ name: claim, emptyDir: {} }));
  const { serviceName } = object.spec;
  return {
    ...pod,
    spec: { ...pod.spec, hostname: name, ...(serviceName === undefined ? {} : { subdomain: serviceName }), volumes: [...(pod.spec.volumes ?? []), ...claims] },
  };
}

function claimNames({ spec }: StatefulSet): string[] {
  const templates: unknown = "volumeClaimTemplates" in spec ? spec.volumeClaimTemplates : undefined;
  if (!Array.isArray(templates)) return [];
  return templates.flatMap((template: { metadata?: { name?: unknown } }) => (typeof template.metadata?.name === "string" ? [template.metadata.name] : []));
}

function ordinalOf(object: StatefulSet, pod: Pod): number {
  const ordinal = Number(pod.metadata.name.slice(object.metadata.name.length + 1));
  return Number.isInteger(ordinal) ? ordinal : Number.MAX_SAFE_INTEGER;
}
