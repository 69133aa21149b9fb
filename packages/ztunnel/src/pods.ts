/**
 * Which pods are served (ztunnel contract 4.4). The node agent says it in a snapshot and then in changes; a pod whose proxy cannot start
 * is pending and tried again. One thing at a time: a retry never runs beside a request.
 *
 * Of the session: away → snapshot (adds and keeps are collected) → live. Losing the agent leads back to away; pods are served on.
 */
import type { NetworkNamespace } from "@fairway/linux";
import { type Clock, type Logger, MeshError, type Readiness, type TaskGroup } from "@fairway/runtime";
import type { PodName } from "./config.ts";
import { ztunnelError } from "./failure.ts";
import type { ProcessMetrics } from "./metrics.ts";

/** Time between attempts to start pending proxies. */
export const pendingRetryMs = 5_000;
/** What blocks readiness, by the reference's name. */
const readinessName = "workload proxy manager";

/** One pod to serve. */
export interface Pod {
  readonly uid: string;
  readonly name: PodName;
  readonly namespace: NetworkNamespace;
}

/** Starts to serve a pod; owns the namespace once it resolved, and only then. Throws when it cannot listen. */
export type StartPod<Served extends AsyncDisposable> = (pod: Pod) => Promise<Served>;

export interface PodsOptions<Served extends AsyncDisposable> {
  readonly start: StartPod<Served>;
  readonly readiness: Readiness;
  readonly metrics: ProcessMetrics;
  readonly clock: Clock;
  readonly log: Logger;
  readonly tasks: TaskGroup;
}

export type PodState<Served> =
  | { readonly kind: "up"; readonly uid: string; readonly name: PodName; readonly served: Served }
  | { readonly kind: "pending"; readonly uid: string; readonly name: PodName };

type Session = { readonly kind: "away" } | { readonly kind: "snapshot"; readonly seen: Set<string> } | { readonly kind: "live" };

interface Running<Served> {
  readonly name: PodName;
  readonly inode: bigint;
  readonly device: bigint;
  readonly served: Served;
}

export class Pods<Served extends AsyncDisposable> implements AsyncDisposable {
  readonly #options: PodsOptions<Served>;
  readonly #running = new Map<string, Running<Served>>();
  readonly #pending = new Map<string, Pod>();
  #session: Session = { kind: "away" };
  #blocker: Disposable | undefined;
  #retry: Disposable | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(options: PodsOptions<Served>) {
    this.#options = options;
    this.#updateReadiness();
  }

  list(): readonly PodState<Served>[] {
    const up = [...this.#running].map(([uid, { name, served }]) => ({ kind: "up" as const, uid, name, served }));
    const pending = [...this.#pending.values()].map(({ uid, name }) => ({ kind: "pending" as const, uid, name }));
    return [...up, ...pending];
  }

  /** A session with the agent began: what it says from here is the whole truth, once its snapshot is complete. */
  connected(): Promise<void> {
    return this.#exclusive(async () => {
      this.#dropPending();
      this.#session = { kind: "snapshot", seen: new Set() };
    });
  }

  /** The agent is away. Nothing stops being served. */
  disconnected(): Promise<void> {
    return this.#exclusive(async () => {
      this.#dropPending();
      this.#session = { kind: "away" };
    });
  }

  /**
   * Serves a pod; the same pod again is no change, the same uid in another namespace replaces. Takes over the namespace.
   * Throws what kept the proxy from starting; the pod is pending then.
   */
  add(pod: Pod): Promise<void> {
    return this.#exclusive(async () => {
      if (this.#session.kind === "snapshot") this.#session.seen.add(pod.uid);
      this.#dropPending(pod.uid);
      const running = this.#running.get(pod.uid);
      if (running !== undefined && running.inode === pod.namespace.inode && running.device === pod.namespace.device) {
        pod.namespace[Symbol.dispose]();
        return;
      }
      if (running !== undefined) await this.#stop(pod.uid, running);
      await this.#start(pod);
    });
  }

  /** A pod that the agent knows but whose namespace it could not find: whatever is served goes on. Throws ZTUNNEL_ZDS_PROTOCOL out of a snapshot. */
  keep(uid: string): Promise<void> {
    return this.#exclusive(async () => {
      if (this.#session.kind !== "snapshot") throw ztunnelError("ZTUNNEL_ZDS_PROTOCOL", "keep was sent after the snapshot");
      this.#session.seen.add(uid);
    });
  }

  /** Stops serving a pod at once. Within a snapshot a running proxy stays until the snapshot is complete. Unknown pods are no error. */
  remove(uid: string): Promise<void> {
    return this.#exclusive(async () => {
      this.#dropPending(uid);
      if (this.#session.kind === "snapshot") {
        this.#session.seen.delete(uid);
        return;
      }
      const running = this.#running.get(uid);
      if (running !== undefined) await this.#stop(uid, running);
    });
  }

  /** The snapshot is complete: what it did not name is stopped. Throws ZTUNNEL_ZDS_PROTOCOL when it was complete before. */
  snapshotSent(): Promise<void> {
    return this.#exclusive(async () => {
      if (this.#session.kind !== "snapshot") throw ztunnelError("ZTUNNEL_ZDS_PROTOCOL", "a second snapshot was sent on one connection");
      const { seen } = this.#session;
      for (const [uid, running] of [...this.#running]) if (!seen.has(uid)) await this.#stop(uid, running);
      this.#session = { kind: "live" };
    });
  }

  /** Starts nothing any more; what is served is served on, and deletes still stop it. */
  refuseMore(): Promise<void> {
    return this.#exclusive(async () => {
      this.#closed = true;
      this.#dropPending();
    });
  }

  /** Stops everything. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#exclusive(async () => {
      this.#closed = true;
      this.#dropPending();
      await Promise.all([...this.#running].map(([uid, running]) => this.#stop(uid, running)));
    });
  }

  async #start(pod: Pod): Promise<void> {
    const { start, metrics, log } = this.#options;
    const about = { uid: pod.uid, workload: `${pod.name.namespace}/${pod.name.name}` };
    if (this.#closed) {
      pod.namespace[Symbol.dispose]();
      throw ztunnelError("ZTUNNEL_POD_STOPPED", "this process is shutting down");
    }
    let served: Served;
    try {
      served = await start(pod);
    } catch (thrown) {
      log.error("cannot serve the pod yet", { ...about, error: MeshError.from(thrown, "ZTUNNEL_POD_STOPPED") });
      this.#pending.set(pod.uid, pod);
      throw thrown;
    }
    this.#running.set(pod.uid, { name: pod.name, inode: pod.namespace.inode, device: pod.namespace.device, served });
    metrics.proxiesStarted.inc();
    log.info("serving the pod", about);
  }

  async #stop(uid: string, { served, name }: Running<Served>): Promise<void> {
    const { metrics, log } = this.#options;
    this.#running.delete(uid);
    await served[Symbol.asyncDispose]();
    metrics.proxiesStopped.inc();
    log.info("the pod is no longer served", { uid, workload: `${name.namespace}/${name.name}` });
  }

  #dropPending(uid?: string): void {
    for (const pod of [...this.#pending.values()]) {
      if (uid !== undefined && pod.uid !== uid) continue;
      this.#pending.delete(pod.uid);
      pod.namespace[Symbol.dispose]();
    }
  }

  #retryPending(): Promise<void> {
    return this.#exclusive(async () => {
      for (const pod of [...this.#pending.values()]) {
        this.#pending.delete(pod.uid);
        // Failing again makes it pending again, and is logged.
        await this.#start(pod).catch(() => {});
      }
    });
  }

  /** Runs `step` after all that came before, and brings the outside up to date when it ended, well or not. */
  #exclusive(step: () => Promise<void>): Promise<void> {
    const result = this.#turn.then(step).finally(() => this.#settled());
    this.#turn = result.catch(() => {});
    return result;
  }

  #settled(): void {
    const { metrics, clock, tasks } = this.#options;
    metrics.activeProxies.set(this.#running.size);
    metrics.pendingProxies.set(this.#pending.size);
    this.#updateReadiness();
    if (this.#pending.size === 0) {
      this.#retry?.[Symbol.dispose]();
      this.#retry = undefined;
      return;
    }
    this.#retry ??= clock.schedule(pendingRetryMs, () => {
      this.#retry = undefined;
      tasks.run("starting pending proxies", () => this.#retryPending());
    });
  }

  #updateReadiness(): void {
    const ready = this.#session.kind === "live" && this.#pending.size === 0;
    if (!ready) this.#blocker ??= this.#options.readiness.block(readinessName);
    else {
      this.#blocker?.[Symbol.dispose]();
      this.#blocker = undefined;
    }
  }
}
