/** Work by key: one run per key at a time, merged while it waits, retried with backoff until it succeeds. */
import { Backoff, type Clock, type Logger, MeshError, TaskGroup } from "@fairway/runtime";

export interface WorkQueueOptions {
  /** For the log: what a run does. */
  readonly name: string;
  readonly log: Logger;
  readonly clock: Clock;
  /** Runs at the same time; keys differ. */
  readonly concurrency?: number;
  readonly retry?: { readonly initialMs: number; readonly maxMs: number };
  readonly random?: () => number;
  /** Brings the world in line with what is wanted for `key`. A rejection is retried. */
  readonly handle: (key: string, signal: AbortSignal) => Promise<void>;
}

const defaultConcurrency = 4;
const defaultRetry = { initialMs: 50, maxMs: 30_000 };
const retryJitter = 0.2;

export class WorkQueue implements AsyncDisposable {
  readonly #options: WorkQueueOptions;
  readonly #tasks: TaskGroup;
  readonly #waiting = new Set<string>();
  readonly #running = new Set<string>();
  readonly #retries = new Map<string, { backoff: Backoff; timer: Disposable | undefined }>();
  #idle: (() => void)[] = [];

  constructor(options: WorkQueueOptions) {
    this.#options = options;
    this.#tasks = new TaskGroup(options.log);
  }

  /** Keys known to need work: waiting, running or about to be retried. */
  get pending(): number {
    return new Set([...this.#waiting, ...this.#running, ...this.#retries.keys()]).size;
  }

  /** Asks for a run of `key`; now if it is waiting for a retry, again if it is running. */
  add(key: string): void {
    if (this.#tasks.signal.aborted) return;
    this.#retries.get(key)?.timer?.[Symbol.dispose]();
    this.#waiting.add(key);
    this.#pump();
  }

  /** Resolves when nothing waits or runs; retries in the future do not count. */
  idle(): Promise<void> {
    if (this.#waiting.size === 0 && this.#running.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { timer } of this.#retries.values()) timer?.[Symbol.dispose]();
    this.#waiting.clear();
    await this.#tasks[Symbol.asyncDispose]();
  }

  #pump(): void {
    const { concurrency = defaultConcurrency, name } = this.#options;
    for (const key of this.#waiting) {
      if (this.#running.size >= concurrency) return;
      if (this.#running.has(key)) continue;
      this.#waiting.delete(key);
      this.#running.add(key);
      this.#tasks.run(`${name} ${key}`, (signal) => this.#work(key, signal));
    }
    if (this.#waiting.size === 0 && this.#running.size === 0) {
      const resolvers = this.#idle;
      this.#idle = [];
      for (const resolve of resolvers) resolve();
    }
  }

  async #work(key: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#options.handle(key, signal);
      this.#retries.delete(key);
    } catch (thrown) {
      if (!signal.aborted) this.#retryLater(key, thrown);
    } finally {
      this.#running.delete(key);
      if (!signal.aborted) this.#pump();
    }
  }

  #retryLater(key: string, thrown: unknown): void {
    const { name, log, clock, retry = defaultRetry, random = Math.random } = this.#options;
    const entry = this.#retries.get(key) ?? { backoff: new Backoff({ ...retry, jitter: retryJitter, random }), timer: undefined };
    const delayMs = entry.backoff.next();
    entry.timer = clock.schedule(delayMs, () => this.add(key));
    this.#retries.set(key, entry);
    log.warn(`${name} failed and will be retried`, { key, error: MeshError.from(thrown, "KUBE_UNAVAILABLE"), retryMs: Math.round(delayMs) });
  }
}
