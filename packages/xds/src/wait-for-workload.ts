/** Waiting until discovery knows the pod that the node agent handed over. */
import type { Workload } from "@fairway/model";
import { type Clock, MeshError, type Watch } from "@fairway/runtime";
import type { MeshChange } from "./mesh-source.ts";

export interface WorkloadWatcher {
  readonly changes: Watch<MeshChange>;
  readonly nodeName: string | undefined;
  readonly clock: Clock;
}

/** See `MeshView.waitForWorkload`. */
export async function waitForWorkload(
  { changes, nodeName, clock }: WorkloadWatcher,
  pod: { readonly namespace: string; readonly name: string; readonly serviceAccount: string },
  { signal, timeoutMs }: { signal: AbortSignal; timeoutMs: number },
): Promise<Workload> {
  const find = (change: MeshChange): Workload | undefined => change.snapshot.workloadByName(pod, nodeName);
  const known = find(changes.current);
  if (known !== undefined) return known;
  const timeout = new AbortController();
  const timer = clock.schedule(timeoutMs, () =>
    timeout.abort(
      new MeshError(
        "XDS_WORKLOAD_UNKNOWN",
        `the control plane did not send the pod ${pod.namespace}/${pod.name} (service account ${pod.serviceAccount}${nodeName === undefined ? "" : `, node ${nodeName}`}) within ${timeoutMs} ms; does it see the pod, and is discovery connected?`,
      ),
    ),
  );
  try {
    const change = await changes.until((candidate) => find(candidate) !== undefined, { signal: AbortSignal.any([signal, timeout.signal]) });
    const workload = find(change);
    if (workload === undefined) throw new MeshError("XDS_WORKLOAD_UNKNOWN", `the pod ${pod.namespace}/${pod.name} was forgotten again`);
    return workload;
  } finally {
    timer[Symbol.dispose]();
  }
}
