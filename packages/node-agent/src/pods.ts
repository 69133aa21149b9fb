/** Keeps the pods of this node as their labels want them: events in, one reconciliation per pod at a time, and a regular look at the rules. */
import { type Collection, type Namespace, type Pod, WorkQueue } from "@fairway/kube";
import type { NetworkNamespace } from "@fairway/linux";
import { type Clock, errorCode, type Logger, MeshError, TaskGroup } from "@fairway/runtime";
import { type Enroller, redirectionOf, uidOf } from "./enroller.ts";
import { type EnrolmentOptions, enrolmentOf, isTerminal } from "./enrolment.ts";
import { Turns } from "./turns.ts";

const retry = { initialMs: 5, maxMs: 5_000 };
const concurrency = 4;
/** How often the rules of every pod are compared with what we put there. */
const resyncIntervalMs = 30_000;

export interface PodsOptions {
  readonly pods: Collection<Pod>;
  readonly namespaces: Collection<Namespace>;
  readonly enroller: Enroller;
  readonly enrolment: EnrolmentOptions;
  readonly clock: Clock;
  readonly log: Logger;
  readonly random?: () => number;
}

/** A pod that is about to start. */
export interface NewPod {
  readonly pod: Pod;
  readonly namespace: Namespace;
  readonly ips: readonly string[];
  /** Opens its network namespace; what it returns belongs to the enrolment. */
  readonly open: () => NetworkNamespace;
}

export class Pods implements AsyncDisposable {
  readonly #options: PodsOptions;
  readonly #turns = new Turns();
  readonly #queue: WorkQueue;
  readonly #tasks: TaskGroup;
  readonly #subscriptions: Disposable[] = [];
  #resyncedAt: number;
  #stopped = false;

  constructor(options: PodsOptions) {
    const { log, clock, random } = options;
    this.#options = options;
    this.#tasks = new TaskGroup(log);
    this.#resyncedAt = clock.monotonic();
    this.#queue = new WorkQueue({
      name: "pod",
      log,
      clock,
      concurrency,
      retry,
      ...(random === undefined ? {} : { random }),
      handle: (key, signal) => this.#turns.run(key, () => this.#reconcile(key, signal)),
    });
  }

  get resyncAgeSeconds(): number {
    return (this.#options.clock.monotonic() - this.#resyncedAt) / 1_000;
  }

  /** Takes over what an agent before this one enrolled. Call when the collections are in sync, before ztunnel may connect. */
  adopt(): void {
    const { pods, namespaces, enroller, enrolment } = this.#options;
    const enrolled = [...pods.list()].filter(
      (pod) => redirectionOf(pod) !== undefined && enrolmentOf(pod, namespaces.get(pod.metadata.namespace ?? ""), enrolment).kind === "enrol",
    );
    enroller.adopt(enrolled);
  }

  /** Starts to reconcile: everything once, then what changes. */
  start(): void {
    const { pods, namespaces } = this.#options;
    this.#subscriptions.push(
      pods.subscribe((events) => {
        for (const { key } of events) this.#queue.add(key);
      }),
      namespaces.subscribe((events) => {
        const changed = new Set(events.map(({ key }) => key));
        for (const [key, pod] of pods.entries()) if (changed.has(pod.metadata.namespace ?? "")) this.#queue.add(key);
      }),
    );
    for (const [key] of pods.entries()) this.#queue.add(key);
    this.#tasks.run("resync", (signal) => this.#resync(signal));
  }

  /** A ztunnel is there: pods that waited for one need not wait for their next retry. */
  ztunnelReady(): void {
    for (const key of this.#options.enroller.unprovenKeys()) this.#queue.add(key);
  }

  /**
   * A pod that the CNI plugin asks for, before any of its processes runs. Resolves when the pod may start: it is captured, or it is none
   * of ours. Rejects when it must not start; nothing of this attempt stays then, because the runtime throws the namespace away.
   */
  enrolNew({ pod, namespace, ips, open }: NewPod, { signal }: { readonly signal: AbortSignal }): Promise<"enrolled" | "left-out"> {
    const { enroller, enrolment } = this.#options;
    const key = `${pod.metadata.namespace ?? ""}/${pod.metadata.name}`;
    return this.#turns.run(key, async () => {
      signal.throwIfAborted();
      if (this.#stopped) throw new MeshError("NODE_AGENT_STOPPING", "the node agent is stopping; the pod will be tried again");
      const decision = enrolmentOf(pod, namespace, enrolment);
      if (decision.kind === "leave-out") return "left-out";
      this.#warn(key, decision.warnings);
      try {
        await enroller.enrol(pod, decision.capture, { found: open(), ips, signal });
        return "enrolled";
      } catch (thrown) {
        await enroller.forget(uidOf(pod), this.#tasks.signal).catch((failure: unknown) => {
          this.#options.log.warn("a pod that could not be enrolled was not cleaned up", {
            pod: key,
            error: MeshError.from(failure, "NODE_AGENT_CLEANUP_FAILED"),
          });
        });
        throw thrown;
      } finally {
        // The annotation may have failed, and addresses may come later: the informer's view decides.
        this.#queue.add(key);
      }
    });
  }

  /** Takes every pod out of the mesh, and no pod in any more: the mesh is being uninstalled. */
  async releaseAll(signal: AbortSignal): Promise<void> {
    const { enroller, clock, log } = this.#options;
    await this.#stop();
    const longest = await this.#releaseEach(enroller.keys(), signal);
    if (longest === 0) return;
    // All of them wait for their peers together; a deadline that comes first is one that the second round meets.
    await clock.sleep(longest, { signal }).catch(() => log.warn("no time is left for peers to learn that pods leave"));
    await this.#releaseEach(enroller.keys(), signal);
  }

  /** Returns after how many milliseconds the last of them may be asked again. */
  async #releaseEach(keys: readonly string[], signal: AbortSignal): Promise<number> {
    const { enroller, pods, log } = this.#options;
    let longest = 0;
    for (const key of keys) {
      const pod = pods.get(key);
      if (pod === undefined) continue;
      try {
        longest = Math.max(longest, await this.#turns.run(key, () => enroller.release(pod, { running: !isTerminal(pod), signal })));
      } catch (thrown) {
        log.warn("a pod was not released", { pod: key, error: MeshError.from(thrown, "NODE_AGENT_RELEASE_FAILED") });
      }
    }
    return longest;
  }

  /** Resolves when nothing waits to be reconciled. */
  idle(): Promise<void> {
    return this.#queue.idle();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop();
  }

  async #stop(): Promise<void> {
    this.#stopped = true;
    for (const subscription of this.#subscriptions) subscription[Symbol.dispose]();
    await this.#queue[Symbol.asyncDispose]();
    await this.#tasks[Symbol.asyncDispose]();
  }

  async #reconcile(key: string, signal: AbortSignal): Promise<void> {
    const { pods, namespaces, enroller, enrolment } = this.#options;
    const pod = pods.get(key);
    for (const uid of enroller.uidsOf(key)) if (pod === undefined || uid !== uidOf(pod)) await enroller.forget(uid, signal);
    if (pod === undefined) return;
    const namespace = namespaces.get(pod.metadata.namespace ?? "");
    const decision = enrolmentOf(pod, namespace, enrolment);
    const known = enroller.has(uidOf(pod));
    // The CNI plugin's pod may be ahead of the watch of namespaces: its namespace's own event decides.
    if (decision.kind === "leave-out" && decision.reason === "not-labelled" && namespace === undefined) return;
    if (decision.kind === "leave-out") {
      if (!known && redirectionOf(pod) === undefined) return;
      const againMs = await enroller.release(pod, { running: !isTerminal(pod), signal });
      if (againMs > 0) this.#tasks.run(`release of ${key}`, (stopped) => this.#later(key, againMs, stopped));
      return;
    }
    // Without a network there is nothing to do yet: the CNI plugin, or the pod's address, comes next.
    if (!known && !hasNetwork(pod)) return;
    this.#warn(key, decision.warnings);
    try {
      await enroller.enrol(pod, decision.capture, { signal });
    } catch (thrown) {
      // Trying again is of no use before one comes, and its coming is told (ztunnelReady).
      if (errorCode(thrown) !== "NODE_AGENT_ZTUNNEL_ABSENT") throw thrown;
      this.#options.log.info("a pod waits for a ztunnel on this node", { pod: key });
    }
  }

  async #later(key: string, delayMs: number, signal: AbortSignal): Promise<void> {
    await this.#options.clock.sleep(delayMs, { signal });
    this.#queue.add(key);
  }

  async #resync(signal: AbortSignal): Promise<void> {
    const { clock, enroller, log } = this.#options;
    for (;;) {
      await clock.sleep(resyncIntervalMs, { signal });
      for (const key of enroller.keys()) {
        for (const uid of enroller.uidsOf(key)) {
          await this.#turns
            .run(key, () => enroller.repair(uid, signal))
            .catch((thrown: unknown) => {
              signal.throwIfAborted();
              log.warn("the rules of a pod could not be checked", { pod: key, error: MeshError.from(thrown, "NODE_AGENT_RESYNC_FAILED") });
            });
        }
      }
      this.#resyncedAt = clock.monotonic();
    }
  }

  #warn(key: string, warnings: readonly string[]): void {
    for (const warning of warnings) this.#options.log.warn(warning, { pod: key });
  }
}

function hasNetwork(pod: Pod): boolean {
  return pod.status?.phase === "Running" || pod.status?.podIP !== undefined;
}
