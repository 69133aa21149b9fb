/** A wait that ends: at its result, at the caller's signal, or at its deadline with the reason given. */
import type { Clock } from "./clock.ts";

export interface DeadlineOptions {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly afterMs: number;
  /** What the wait rejects with when it took too long. */
  readonly reason: Error;
}

/**
 * Runs `wait` with a signal that aborts at the earlier of the caller's and the deadline, and does not wait for one that ignores it:
 * what such a wait brings later is dropped, so it must hold nothing that needs closing.
 */
export async function withDeadline<T>({ clock, signal, afterMs, reason }: DeadlineOptions, wait: (signal: AbortSignal) => Promise<T>): Promise<T> {
  signal.throwIfAborted();
  const controller = new AbortController();
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => stop(signal.reason);
  const stop = (why: unknown): void => {
    controller.abort(why);
    aborted.reject(why);
  };
  signal.addEventListener("abort", onAbort, { once: true });
  using _timer = clock.schedule(afterMs, () => stop(reason));
  try {
    return await Promise.race([wait(controller.signal), aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
