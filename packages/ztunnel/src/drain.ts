/**
 * The end of a process (ztunnel contract 10): nothing new, wait for what lives, end by force what is left at the deadline. While it waits it
 * says what it waits for, in the log and in the dump.
 */
import type { Clock, Logger } from "@fairway/runtime";
import { ztunnelError } from "./failure.ts";
import type { ThreadedPod, TrafficThreads } from "./traffic-threads.ts";

/** Between two lines about what is left. */
const reportEveryMs = 5_000;
/** Pods named in such a line, those with the most connections first. */
const namedPods = 5;

/** What the dump says of it. */
export interface DrainReport {
  readonly startedAt: string;
  readonly deadline: string;
  readonly connections: number;
}

export class PodDrain {
  readonly #options: { readonly threads: TrafficThreads; readonly deadlineMs: number; readonly clock: Clock; readonly log: Logger };
  readonly #pods: readonly ThreadedPod[];
  #startedAt = 0;

  constructor(pods: readonly ThreadedPod[], options: { threads: TrafficThreads; deadlineMs: number; clock: Clock; log: Logger }) {
    this.#pods = pods;
    this.#options = options;
  }

  /** Resolves when nothing lives any more, at the deadline at the latest. */
  async run(): Promise<void> {
    const { deadlineMs, clock, log } = this.#options;
    this.#startedAt = clock.now();
    const ended = new AbortController();
    const { promise: deadline, resolve: expire } = Promise.withResolvers<void>();
    using _timer = clock.schedule(deadlineMs, expire);
    log.info("draining", { ...(await this.#remaining()), deadlineMs });
    const reporting = this.#report(ended.signal);
    await Promise.race([Promise.all(this.#pods.map((pod) => pod.drain())), deadline]);
    ended.abort();
    await reporting;
    const left = await this.#remaining();
    if (left.connections > 0) log.warn("the drain deadline passed; connections are ended by force", left);
    const reason = ztunnelError("ZTUNNEL_DRAIN_DEADLINE", "connection closed: this process is shutting down and its drain deadline passed");
    await Promise.all(this.#pods.map((pod) => pod.stop(reason)));
  }

  async describe(): Promise<DrainReport> {
    const { connections } = await this.#remaining();
    const deadline = this.#startedAt + this.#options.deadlineMs;
    return { startedAt: new Date(this.#startedAt).toISOString(), deadline: new Date(deadline).toISOString(), connections };
  }

  async #report(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    while (!signal.aborted) {
      await clock.sleep(reportEveryMs, { signal }).catch(() => {});
      if (!signal.aborted) log.info("still draining", await this.#remaining());
    }
  }

  async #remaining(): Promise<{ connections: number; pods: string | undefined }> {
    const sizes = await this.#options.threads.sizes();
    const busy = this.#pods
      .map(({ pod, number }) => ({ name: `${pod.namespace}/${pod.name}`, size: sizes.get(number) ?? 0 }))
      .filter(({ size }) => size > 0)
      .sort((a, b) => b.size - a.size);
    const connections = busy.reduce((sum, { size }) => sum + size, 0);
    const named = busy.slice(0, namedPods).map(({ name, size }) => `${name}=${size}`);
    const more = busy.length > namedPods ? [`and ${busy.length - namedPods} more`] : [];
    return { connections, pods: busy.length === 0 ? undefined : [...named, ...more].join(" ") };
  }
}
