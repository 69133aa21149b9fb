/**
 * Ending in two steps that are never confused: `draining` says take nothing new and finish,
 * `aborted` says stop now. Whoever must be waited for holds the drain.
 */
import type { Clock } from "./clock.ts";
import { MeshError } from "./error.ts";

export interface DrainOutcome {
  readonly forced: boolean;
  /** Names still held when time ran out. */
  readonly remaining: readonly string[];
}

export class Drain {
  readonly #clock: Clock;
  readonly #draining = new AbortController();
  readonly #aborted = new AbortController();
  readonly #holders = new Map<symbol, string>();
  #onIdle: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Aborts when draining begins: finish, take nothing new. */
  get draining(): AbortSignal {
    return this.#draining.signal;
  }

  /** Aborts when the deadline passed: stop now. */
  get aborted(): AbortSignal {
    return this.#aborted.signal;
  }

  /** Keeps the drain open until disposed. */
  hold(name: string): Disposable {
    const key = Symbol(name);
    this.#holders.set(key, name);
    return {
      [Symbol.dispose]: () => {
        this.#holders.delete(key);
        if (this.#holders.size === 0) this.#onIdle?.();
      },
    };
  }

  /** Starts draining and resolves when nobody holds it or `deadlineMs` passed; in the latter case everything is aborted. */
  async begin(deadlineMs: number): Promise<DrainOutcome> {
    this.#draining.abort(new MeshError("RUNTIME_DRAINING", "the process is draining"));
    if (this.#holders.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = this.#clock.schedule(deadlineMs, resolve);
        this.#onIdle = () => {
          timer[Symbol.dispose]();
          resolve();
        };
      });
    }
    const remaining = [...this.#holders.values()];
    this.#aborted.abort(new MeshError("RUNTIME_DRAIN_DEADLINE", "the drain deadline passed"));
    return { forced: remaining.length > 0, remaining };
  }
}
