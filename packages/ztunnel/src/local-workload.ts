/** The pod a proxy serves, as the mesh knows it: awaited for a moment when the mesh is behind the node agent (ztunnel contract 4.4). */
import { type Baggage, formatBaggage } from "@fairway/hbone";
import { type SpiffeId, type Workload, workloadIdentity } from "@fairway/model";
import { type Clock, withDeadline } from "@fairway/runtime";
import type { MeshView } from "@fairway/xds";
import type { PodName } from "./config.ts";
import { ztunnelError } from "./failure.ts";

/** How long a connection waits for its own workload to become known. */
const workloadWaitMs = 5_000;

/** The workload with what every connection of it needs, made once per change. */
export interface LocalWorkload {
  readonly workload: Workload;
  readonly identity: SpiffeId;
  /** The `baggage` header that describes it. */
  readonly baggage: string | undefined;
}

/** Finds the workload of one pod. It has no way to certificates: who only needs to know the pod gets no more than that. */
export class LocalWorkloadSource {
  readonly #mesh: Pick<MeshView, "decide" | "synced" | "waitForWorkload">;
  readonly #pod: PodName;
  readonly #node: string | undefined;
  readonly #clock: Clock;
  #current: LocalWorkload | undefined;

  constructor(options: { mesh: Pick<MeshView, "decide" | "synced" | "waitForWorkload">; pod: PodName; node: string | undefined; clock: Clock }) {
    this.#mesh = options.mesh;
    this.#pod = options.pod;
    this.#node = options.node;
    this.#clock = options.clock;
  }

  /** Waits up to five seconds. Throws ZTUNNEL_NOT_SYNCED, ZTUNNEL_OWN_WORKLOAD_UNKNOWN, or the signal's reason. */
  async fetch({ signal }: { signal: AbortSignal }): Promise<LocalWorkload> {
    if (!this.#mesh.synced.current) {
      const late = ztunnelError("ZTUNNEL_NOT_SYNCED", "the mesh is not known yet; is the control plane reachable?");
      await withDeadline({ clock: this.#clock, signal, afterMs: workloadWaitMs, reason: late }, (waiting) =>
        this.#mesh.synced.until((synced) => synced, { signal: waiting }),
      );
    }
    try {
      const known = await this.#mesh.decide((snapshot) => snapshot.workloadByName(this.#pod, this.#node), { signal });
      return this.#described(known ?? (await this.#mesh.waitForWorkload(this.#pod, { signal, timeoutMs: workloadWaitMs })));
    } catch (cause) {
      if (signal.aborted) throw signal.reason;
      const { namespace, name, serviceAccount } = this.#pod;
      const wanted = `${namespace}/${name} (service account ${serviceAccount})`;
      throw ztunnelError("ZTUNNEL_OWN_WORKLOAD_UNKNOWN", `failed to fetch information about local workload ${wanted}`, cause);
    }
  }

  #described(workload: Workload): LocalWorkload {
    if (this.#current?.workload === workload) return this.#current;
    this.#current = { workload, identity: workloadIdentity(workload), baggage: formatBaggage(baggageOf(workload)) };
    return this.#current;
  }
}

/** A workload in the terms of the baggage header (contract 1.5). */
function baggageOf(workload: Workload): Baggage {
  return {
    clusterName: workload.clusterId,
    namespace: workload.namespace,
    workloadType: workload.workloadType,
    workloadName: workload.workloadName,
    serviceName: workload.canonicalName,
    serviceVersion: workload.canonicalRevision,
    region: workload.locality?.region,
    zone: workload.locality?.zone,
  };
}
