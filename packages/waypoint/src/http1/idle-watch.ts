/** Notices that nothing happened on a connection for a while, at the price of one assignment per event. */
import type { Clock } from "@fairway/runtime";

/** Looks per period: what is idle is noticed up to this share of the period late. */
const looksPerPeriod = 4;

export class IdleWatch implements Disposable {
  readonly #clock: Clock;
  readonly #everyMs: number;
  readonly #onIdle: () => void;
  #quiet = 0;
  #timer: Disposable;

  /** `onIdle` is called after each period without `touch`. */
  constructor(clock: Clock, periodMs: number, onIdle: () => void) {
    this.#clock = clock;
    this.#everyMs = periodMs / looksPerPeriod;
    this.#onIdle = onIdle;
    this.#timer = clock.schedule(this.#everyMs, this.#look);
  }

  touch(): void {
    this.#quiet = -1;
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
  }

  readonly #look = (): void => {
    this.#timer = this.#clock.schedule(this.#everyMs, this.#look);
    this.#quiet += 1;
    if (this.#quiet < looksPerPeriod) return;
    this.#quiet = 0;
    this.#onIdle();
  };
}
