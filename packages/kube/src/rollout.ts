/** Waiting for what `kubectl rollout status` and `helm --wait` wait for. */
import { type Clock, MeshError, systemClock } from "@fairway/runtime";
import type { KubeClient, KubeObject, ResourceType } from "./collection.ts";

interface Deployment extends KubeObject {
  spec: { replicas?: number };
  status?: { observedGeneration?: number; updatedReplicas?: number; availableReplicas?: number; replicas?: number };
}
interface DaemonSet extends KubeObject {
  status?: { observedGeneration?: number; desiredNumberScheduled?: number; updatedNumberScheduled?: number; numberReady?: number };
}

const deployments: ResourceType<Deployment> = { group: "apps", version: "v1", plural: "deployments", kind: "Deployment", namespaced: true };
const daemonSets: ResourceType<DaemonSet> = { group: "apps", version: "v1", plural: "daemonsets", kind: "DaemonSet", namespaced: true };
const pollMs = 100;

/**
 * Resolves when every Deployment and DaemonSet of `namespace` runs exactly what its spec says.
 * Throws KUBE_ROLLOUT_TIMEOUT naming those that do not.
 */
export async function waitForRollout(
  client: KubeClient,
  namespace: string,
  { timeoutMs, clock = systemClock }: { timeoutMs: number; clock?: Clock },
): Promise<void> {
  const signal = AbortSignal.timeout(timeoutMs);
  for (;;) {
    const waiting = [
      ...(await client.list(deployments, { namespace })).filter((object) => !deploymentDone(object)),
      ...(await client.list(daemonSets, { namespace })).filter((object) => !daemonSetDone(object)),
    ].map(({ metadata }) => metadata.name);
    if (waiting.length === 0) return;
    if (signal.aborted) {
      throw new MeshError(
        "KUBE_ROLLOUT_TIMEOUT",
        `after ${timeoutMs / 1000} s these are still rolling out in ${namespace}: ${waiting.join(", ")}; kubectl describe pods -n ${namespace} says why`,
      );
    }
    await clock.sleep(pollMs, { signal }).catch(() => undefined);
  }
}

function deploymentDone({ metadata, spec, status }: Deployment): boolean {
  const wanted = spec.replicas ?? 1;
  return (
    status?.observedGeneration === metadata.generation &&
    [status?.updatedReplicas, status?.availableReplicas, status?.replicas].every((count) => (count ?? 0) === wanted)
  );
}

function daemonSetDone({ metadata, status }: DaemonSet): boolean {
  const wanted = status?.desiredNumberScheduled;
  return (
    status?.observedGeneration === metadata.generation && wanted !== undefined && status?.updatedNumberScheduled === wanted && status?.numberReady === wanted
  );
}
