/**
 * The threads that carry traffic, as one: each listens on the same port, and the kernel spreads tunnels over them (SO_REUSEPORT). All are told
 * the same, in the same order. A thread that dies takes the process with it: whoever supervises the process starts it anew.
 */
import { emptySnapshot, type Snapshot } from "@fairway/model";
import { type CertificateSource, detachCertificate, type WorkloadCertificate } from "@fairway/pki";
import { type Clock, type LogFilter, type Logger, type MetricReading, messageOf } from "@fairway/runtime";
import type { WaypointView } from "@fairway/xds";
import type { ProxyConfig } from "./config.ts";
import type { ClusterDump } from "./config-dump.ts";
import { meshDifference } from "./mesh-difference.ts";
import type { ThreadNews, ThreadSettings } from "./thread-protocol.ts";
import { holdThread, type SpawnThread, type TrafficThread } from "./traffic-thread.ts";

export interface TrafficThreadsOptions {
  readonly count: number;
  readonly config: ProxyConfig;
  readonly logFormat: ThreadSettings["logFormat"];
  readonly view: Pick<WaypointView, "follow" | "mesh" | "synced">;
  readonly certificates: Pick<CertificateSource, "states">;
  readonly logFilter: LogFilter;
  readonly log: Logger;
  readonly clock: Clock;
  /** Takes whole lines. */
  readonly write: (text: string) => void;
  readonly spawn: SpawnThread;
}

/** Changes of the mesh that come within this time go to the threads together. */
const meshDelayMs = 20;

export class TrafficThreads implements AsyncDisposable {
  readonly #options: TrafficThreadsOptions;
  readonly #threads: TrafficThread[] = [];
  readonly #subscriptions: Disposable[] = [];
  #certificate: WorkloadCertificate | undefined;
  #told: Snapshot = emptySnapshot;
  #meshTimer: Disposable | undefined;

  private constructor(options: TrafficThreadsOptions) {
    this.#options = options;
  }

  /** Resolves when every thread is up and told what is known. Throws WAYPOINT_WORKER_LOST with none left behind. */
  static async start(options: TrafficThreadsOptions): Promise<TrafficThreads> {
    const threads = new TrafficThreads(options);
    try {
      for (let number = 1; number <= options.count; number++) threads.#open(number);
      await Promise.all(threads.#threads.map(({ ready }) => ready));
      threads.#follow();
    } catch (thrown) {
      await threads[Symbol.asyncDispose]();
      throw thrown;
    }
    return threads;
  }

  /** Rejects with WAYPOINT_WORKER_LOST when a thread ended by itself. */
  get alive(): Promise<never> {
    return Promise.race(this.#threads.map(({ alive }) => alive));
  }

  /** Listens on every thread, or throws what the first failing one says. */
  async listen(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.call("listen", undefined)));
  }

  /** Takes nothing new; resolves when the last request is over, or when `signal` aborts. */
  async drain({ signal }: { signal: AbortSignal }): Promise<void> {
    const drained = Promise.allSettled(this.#threads.map((thread) => thread.call("drain", undefined)));
    const { promise: aborted, resolve } = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => resolve(), { once: true });
    if (signal.aborted) resolve();
    await Promise.race([drained, aborted]);
  }

  async active(): Promise<number> {
    const counts = await Promise.all(this.#threads.map((thread) => thread.call("active", undefined)));
    return counts.reduce((sum, count) => sum + count, 0);
  }

  metrics(): Promise<readonly MetricReading[]> {
    return Promise.all(this.#threads.map((thread) => thread.call("metrics", undefined)));
  }

  /** What each thread makes of the clusters: health, breakers, requests under way. */
  clusters(): Promise<readonly (readonly ClusterDump[])[]> {
    return Promise.all(this.#threads.map((thread) => thread.call("clusters", undefined)));
  }

  followLogFilter(): void {
    this.#tell({ kind: "log-filter", expression: this.#options.logFilter.toString() });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const subscription of this.#subscriptions) subscription[Symbol.dispose]();
    this.#meshTimer?.[Symbol.dispose]();
    await Promise.all(this.#threads.map((thread) => thread[Symbol.asyncDispose]()));
  }

  #open(number: number): void {
    const { config, logFormat, logFilter, clock, write, spawn } = this.#options;
    const spawned = spawn({ thread: number, config, logFormat, logFilter: logFilter.toString() });
    const thread: TrafficThread = holdThread({
      spawned,
      number,
      clock,
      onSpeech: ({ text }) => {
        write(text);
        thread.tell({ kind: "lines-written" });
      },
    });
    this.#threads.push(thread);
  }

  #follow(): void {
    const { view, certificates } = this.#options;
    const onMesh = (): void => {
      this.#meshTimer ??= this.#options.clock.schedule(meshDelayMs, () => {
        this.#meshTimer = undefined;
        this.#tellMesh();
      });
    };
    this.#tellMesh();
    this.#tellCertificate();
    this.#subscriptions.push(
      view.mesh.changes.subscribe(onMesh),
      // Routes and endpoints first, and then that they are all: nobody serves what is half known.
      view.follow((change) => this.#tell({ kind: "resources", change })),
      view.synced.subscribe((synced) => {
        this.#tellMesh();
        this.#tell({ kind: "synced", synced });
      }),
      certificates.states.subscribe(() => this.#tellCertificate()),
    );
    this.#tell({ kind: "synced", synced: view.synced.current });
  }

  #tellMesh(): void {
    const { snapshot } = this.#options.view.mesh;
    const change = meshDifference(this.#told, snapshot);
    this.#told = snapshot;
    if (change !== undefined) this.#tell({ kind: "mesh", change });
  }

  #tellCertificate(): void {
    const state = this.#options.certificates.states.current.get(this.#options.config.identity);
    const certificate = state === undefined || state.kind === "initializing" ? undefined : state.certificate;
    if (certificate === this.#certificate) return;
    this.#certificate = certificate;
    this.#tell({ kind: "certificate", parts: certificate === undefined ? undefined : detachCertificate(certificate) });
  }

  #tell(news: ThreadNews): void {
    for (const thread of this.#threads) {
      try {
        thread.tell(news);
      } catch (thrown) {
        this.#options.log.error("a thread could not be told", { kind: news.kind, error: messageOf(thrown) });
        throw thrown;
      }
    }
  }
}
