/** Collects the changes of all sources for a moment and hands them out as one numbered batch. */
import type { Clock } from "@fairway/runtime";
import type { ResourceSource } from "./mesh-source.ts";

export interface ChangeBatch {
  readonly epoch: number;
  /** By type URL. */
  readonly names: ReadonlyMap<string, ReadonlySet<string>>;
}

const none: ReadonlySet<string> = new Set();

export class ChangeFeed implements Disposable {
  readonly #clock: Clock;
  readonly #debounceMs: number;
  readonly #onBatch: (batch: ChangeBatch) => void;
  readonly #subscriptions: readonly Disposable[];
  #waiting = new Map<string, Set<string>>();
  #timer: Disposable | undefined;
  #epoch = 1;

  constructor(
    sources: readonly ResourceSource[],
    options: { readonly clock: Clock; readonly debounceMs: number; readonly onBatch: (batch: ChangeBatch) => void },
  ) {
    this.#clock = options.clock;
    this.#debounceMs = options.debounceMs;
    this.#onBatch = options.onBatch;
    this.#subscriptions = sources.map((source) => source.subscribe((names) => this.#changed(source.typeUrl, names)));
  }

  /** Number of the last batch; what a new subscriber reads from the sources is of this batch, stale names excepted. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Names that changed since the last batch. */
  stale(typeUrl: string): ReadonlySet<string> {
    return this.#waiting.get(typeUrl) ?? none;
  }

  [Symbol.dispose](): void {
    this.#timer?.[Symbol.dispose]();
    for (const subscription of this.#subscriptions) subscription[Symbol.dispose]();
  }

  /** The window is counted from the first change, so that steady change is not put off. */
  #changed(typeUrl: string, names: ReadonlySet<string>): void {
    const waiting = this.#waiting.get(typeUrl) ?? new Set();
    for (const name of names) waiting.add(name);
    this.#waiting.set(typeUrl, waiting);
    this.#timer ??= this.#clock.schedule(this.#debounceMs, () => {
      const batch = { epoch: ++this.#epoch, names: this.#waiting };
      this.#timer = undefined;
      this.#waiting = new Map();
      this.#onBatch(batch);
    });
  }
}
