/** When a probe runs and what its results add up to: delays, thresholds, and the verdict that changes only when a threshold is met. */

import type { Probe } from "@fairway/kube";
import type { Clock } from "@fairway/runtime";

export interface ProbeResult {
  readonly ok: boolean;
  readonly message: string;
}

export type Verdict = "unknown" | "success" | "failure";

/** Counts consecutive results. Pure but for its own count. */
export class ProbeCount {
  readonly #successThreshold: number;
  readonly #failureThreshold: number;
  #last: boolean | undefined;
  #run = 0;
  #verdict: Verdict = "unknown";

  constructor(probe: Probe) {
    this.#successThreshold = Math.max(1, probe.successThreshold ?? 1);
    this.#failureThreshold = Math.max(1, probe.failureThreshold ?? 3);
  }

  /** The verdict after one more result; undefined when it did not change. */
  add(ok: boolean): Verdict | undefined {
    this.#run = this.#last === ok ? this.#run + 1 : 1;
    this.#last = ok;
    if (this.#run < (ok ? this.#successThreshold : this.#failureThreshold)) return undefined;
    const verdict = ok ? "success" : "failure";
    if (verdict === this.#verdict) return undefined;
    this.#verdict = verdict;
    return verdict;
  }
}

export interface ProbeLoopOptions {
  readonly probe: Probe;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Tries once; never throws. */
  readonly attempt: (timeoutMs: number, signal: AbortSignal) => Promise<ProbeResult>;
  /** Each change of the verdict. Returning "stop" ends the loop. */
  readonly onVerdict: (verdict: Verdict, message: string) => "stop" | "continue";
  readonly onFailure: (message: string) => void;
  /** Ask more often until the first success, so that nobody waits a whole period for a program that starts in half a second. */
  readonly eager: boolean;
}

/** Between extra attempts before the first success. Their failures do not count. */
const eagerPauseMs = 200;

/** Probes until the signal aborts or the listener stops it. Never rejects. */
export async function probeLoop({ probe, clock, signal, attempt, onVerdict, onFailure, eager }: ProbeLoopOptions): Promise<void> {
  const count = new ProbeCount(probe);
  const periodMs = Math.max(1, probe.periodSeconds ?? 10) * 1000;
  const timeoutMs = Math.max(1, probe.timeoutSeconds ?? 1) * 1000;
  const pause = (ms: number): Promise<void> => clock.sleep(ms, { signal }).catch(() => undefined);
  if ((probe.initialDelaySeconds ?? 0) > 0) await pause((probe.initialDelaySeconds ?? 0) * 1000);
  let succeeded = false;
  let countsFrom = clock.monotonic();
  while (!signal.aborted) {
    const { ok, message } = await attempt(timeoutMs, signal);
    if (signal.aborted) return;
    const counts = ok || clock.monotonic() >= countsFrom;
    if (counts) {
      countsFrom = clock.monotonic() + periodMs;
      if (!ok) onFailure(message);
      const verdict = count.add(ok);
      if (verdict !== undefined && onVerdict(verdict, message) === "stop") return;
    }
    succeeded ||= ok;
    await pause(eager && !succeeded ? Math.min(periodMs, eagerPauseMs) : periodMs);
  }
}
