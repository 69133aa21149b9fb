/** The latest value of something that changes. Readers see values, never a stream of edits. */

export interface Watch<T> {
  readonly current: T;
  /** Calls `listener` after each change, not for the current value. Dispose to stop. */
  subscribe(listener: (value: T) => void): Disposable;
  /** Resolves with the first value, now or later, that satisfies `accept`; rejects with the signal's reason. */
  until(accept: (value: T) => boolean, options: { signal: AbortSignal }): Promise<T>;
}

/** The writable side of a Watch. Listeners run synchronously; one that throws is reported and does not stop the others. */
export class Watched<T> implements Watch<T> {
  #current: T;
  readonly #listeners = new Set<(value: T) => void>();

  constructor(initial: T) {
    this.#current = initial;
  }

  get current(): T {
    return this.#current;
  }

  set(value: T): void {
    if (Object.is(value, this.#current)) return;
    this.#current = value;
    for (const listener of [...this.#listeners]) {
      try {
        listener(value);
      } catch (thrown) {
        process.emitWarning(thrown instanceof Error ? thrown : String(thrown));
      }
    }
  }

  subscribe(listener: (value: T) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  until(accept: (value: T) => boolean, { signal }: { signal: AbortSignal }): Promise<T> {
    if (signal.aborted) return Promise.reject(signal.reason);
    if (accept(this.#current)) return Promise.resolve(this.#current);
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        subscription[Symbol.dispose]();
        reject(signal.reason);
      };
      const subscription = this.subscribe((value) => {
        if (!accept(value)) return;
        subscription[Symbol.dispose]();
        signal.removeEventListener("abort", onAbort);
        resolve(value);
      });
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }
}
