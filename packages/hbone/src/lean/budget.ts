/** A token bucket: what a peer may do at once, and how fast that comes back. */
import type { Clock } from "@fairway/runtime";

export class Budget {
  readonly #clock: Clock;
  readonly #burst: number;
  readonly #perMs: number;
  #spent = 0;
  #at = 0;

  constructor(clock: Clock, burst: number, perSecond: number) {
    this.#clock = clock;
    this.#burst = burst;
    this.#perMs = perSecond / 1_000;
  }

  /** False when there is nothing left to spend. */
  spend(): boolean {
    // The clock is asked only when it matters.
    if (this.#spent + 1 > this.#burst / 2) this.#refill();
    this.#spent += 1;
    return this.#spent <= this.#burst;
  }

  #refill(): void {
    const now = this.#clock.monotonic();
    this.#spent = Math.max(0, this.#spent - (now - this.#at) * this.#perMs);
    this.#at = now;
  }
}
