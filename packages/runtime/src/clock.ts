/** Time as a parameter, so that tests own it and never sleep. All durations are milliseconds. */

export interface Clock {
  /** Wall time, milliseconds since the epoch. */
  now(): number;
  /** Monotonic time in milliseconds, for durations. */
  monotonic(): number;
  /** Runs `task` once after `delayMs`; dispose to cancel. Never keeps the process alive. */
  schedule(delayMs: number, task: () => void): Disposable;
  /** Resolves after `delayMs`; rejects with the signal's reason when it aborts first. Who awaits it keeps the process alive. */
  sleep(delayMs: number, options: { signal: AbortSignal }): Promise<void>;
}

const longestTimerMs = 2_147_483_647;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  schedule: (delayMs, task) => {
    const timer = setTimeout(task, Math.min(delayMs, longestTimerMs));
    timer.unref();
    return { [Symbol.dispose]: () => clearTimeout(timer) };
  },
  sleep: (delayMs, { signal }) => sleepOn(scheduleAndWait, delayMs, signal),
};

/** As `schedule`, but the process waits for it. */
function scheduleAndWait(delayMs: number, task: () => void): Disposable {
  const timer = setTimeout(task, Math.min(delayMs, longestTimerMs));
  return { [Symbol.dispose]: () => clearTimeout(timer) };
}

/** A clock that moves only when told to. */
export class ManualClock implements Clock {
  #now: number;
  #timers: { at: number; task: () => void }[] = [];

  constructor(startMs = 0) {
    this.#now = startMs;
  }

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#now;
  }

  schedule(delayMs: number, task: () => void): Disposable {
    const timer = { at: this.#now + delayMs, task };
    this.#timers.push(timer);
    return {
      [Symbol.dispose]: () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
      },
    };
  }

  sleep(delayMs: number, { signal }: { signal: AbortSignal }): Promise<void> {
    return sleepOn((byMs, task) => this.schedule(byMs, task), delayMs, signal);
  }

  /** Moves time forward and runs what falls due, in order; lets promises settle between timers. */
  async advance(byMs: number): Promise<void> {
    const end = this.#now + byMs;
    for (;;) {
      const due = this.#timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((timer) => timer !== due);
      this.#now = Math.max(this.#now, due.at);
      due.task();
      await new Promise((resolve) => setImmediate(resolve));
    }
    this.#now = end;
  }
}

function sleepOn(schedule: Clock["schedule"], delayMs: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.reject(signal.reason);
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      timer[Symbol.dispose]();
      reject(signal.reason);
    };
    const timer = schedule(delayMs, () => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    });
    signal.addEventListener("abort", onAbort, { once: true });
  });
}
