/** Waiting until everything in a namespace runs as it should, as `kubectl rollout status` does. */
import { type Clock, MeshError, systemClock } from "@fairway/runtime";
import type { KubeClient, KubeObject } from "./collection.ts";
import { type DaemonSet, type Deployment, daemonSets, deployments } from "./resources/apps.ts";

const pollMs = 200;
const never = new AbortController().signal;

/** Resolves when every Deployment and DaemonSet of the namespace is rolled out. Throws KUBE_ROLLOUT_TIMEOUT naming those that are not. */
export async function waitForRollout(
  client: KubeClient,
  namespace: string,
  { timeoutMs, clock = systemClock, signal = never }: { timeoutMs: number; clock?: Clock; signal?: AbortSignal },
): Promise<void> {
  const deadline = clock.monotonic() + timeoutMs;
  for (;;) {
    const [deploymentList, daemonSetList] = await Promise.all([client.list(deployments, { namespace }), client.list(daemonSets, { namespace })]);
    const pending = [
      ...deploymentList.flatMap((object) => pendingOf("deployment", object, deploymentProgress(object))),
      ...daemonSetList.flatMap((object) => pendingOf("daemonset", object, daemonSetProgress(object))),
    ];
    if (pending.length === 0) return;
    if (clock.monotonic() >= deadline) {
      throw new MeshError(
        "KUBE_ROLLOUT_TIMEOUT",
        `not rolled out in ${namespace} after ${timeoutMs / 1000} s: ${pending.join(", ")}; look at the pods' status and logs`,
      );
    }
    await clock.sleep(pollMs, { signal });
  }
}

interface Progress {
  readonly observed: boolean;
  readonly wanted: number;
  readonly ready: number;
}

function deploymentProgress({ metadata, spec, status = {} }: Deployment): Progress {
  const { updatedReplicas = 0, availableReplicas = 0, replicas = 0 } = status;
  const wanted = spec?.replicas ?? 1;
  const old = Math.max(0, replicas - updatedReplicas);
  return { observed: (status.observedGeneration ?? 0) >= (metadata.generation ?? 0), wanted, ready: Math.min(updatedReplicas, availableReplicas) - old };
}

function daemonSetProgress({ metadata, status = {} }: DaemonSet): Progress {
  const { desiredNumberScheduled = 0, numberAvailable = 0, updatedNumberScheduled = 0 } = status;
  const observed = (status.observedGeneration ?? 0) >= (metadata.generation ?? 0) && status.desiredNumberScheduled !== undefined;
  return { observed, wanted: desiredNumberScheduled, ready: Math.min(numberAvailable, updatedNumberScheduled) };
}

function pendingOf(kind: string, { metadata }: KubeObject, { observed, wanted, ready }: Progress): string[] {
  return observed && ready >= wanted ? [] : [`${kind}/${metadata.name} (${Math.max(0, ready)} of ${wanted})`];
}
