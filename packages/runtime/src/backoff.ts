/** Exponential waiting times with jitter. */

export interface BackoffOptions {
  readonly initialMs: number;
  readonly maxMs: number;
  /** Growth per failure; 2 unless told. */
  readonly factor?: number;
  /** Share of the delay that varies, 0..1; 0.2 means ±20 %. */
  readonly jitter?: number;
  /** Returns 0..1; `Math.random` unless told. */
  readonly random?: () => number;
}

export class Backoff {
  readonly #options: BackoffOptions;
  #delayMs: number;

  constructor(options: BackoffOptions) {
    this.#options = options;
    this.#delayMs = options.initialMs;
  }

  /** The delay to wait now; the next one is longer, up to `maxMs`. */
  next(): number {
    const { maxMs, factor = 2, jitter = 0, random = Math.random } = this.#options;
    const delayMs = this.#delayMs;
    this.#delayMs = Math.min(maxMs, this.#delayMs * factor);
    return delayMs * (1 + jitter * (2 * random() - 1));
  }

  reset(): void {
    this.#delayMs = this.#options.initialMs;
  }
}
