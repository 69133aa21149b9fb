/** PINGs that find out whether the far end of a tunnel still lives (ztunnel contract 1.7). Traffic does not suppress them. */
import { type Clock, MeshError } from "@fairway/runtime";
import { pingLength } from "./frames.ts";

export interface KeepaliveOptions {
  readonly clock: Clock;
  /** From the start, and from each answer, to the next PING. */
  readonly intervalMs: number;
  /** How long an answer may take. */
  readonly timeoutMs: number;
  readonly send: (payload: Buffer) => void;
  readonly onDead: (error: MeshError) => void;
}

export class Keepalive implements Disposable {
  readonly #options: KeepaliveOptions;
  /** Counts up, so that a late answer is not taken for the next one. */
  readonly #payload: Buffer = Buffer.alloc(pingLength);
  #count = 0;
  #awaited = false;
  #stopped = false;
  #timer: Disposable;

  constructor(options: KeepaliveOptions) {
    this.#options = options;
    this.#timer = options.clock.schedule(options.intervalMs, this.#ping);
  }

  onAnswer(payload: Buffer): void {
    if (!this.#awaited || !payload.equals(this.#payload)) return;
    this.#awaited = false;
    this.#timer[Symbol.dispose]();
    this.#timer = this.#options.clock.schedule(this.#options.intervalMs, this.#ping);
  }

  [Symbol.dispose](): void {
    this.#stopped = true;
    this.#timer[Symbol.dispose]();
  }

  readonly #ping = (): void => {
    const { clock, timeoutMs, send } = this.#options;
    this.#count += 1;
    this.#payload.writeUInt32BE(this.#count >>> 0, pingLength - 4);
    this.#awaited = true;
    // Timers come before sockets: to a process that was stopped or starved, the answer is there and not read yet.
    this.#timer = clock.schedule(timeoutMs, () => void setImmediate(this.#onDeadline));
    send(this.#payload);
  };

  readonly #onDeadline = (): void => {
    if (this.#stopped || !this.#awaited) return;
    const { timeoutMs, onDead } = this.#options;
    onDead(new MeshError("HBONE_PING_TIMEOUT", `the peer did not answer a PING within ${timeoutMs} ms; is it gone or cut off?`));
  };
}
