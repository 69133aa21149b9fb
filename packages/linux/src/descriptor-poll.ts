/** Readiness of a descriptor on the event loop. */
import { node } from "koffi";

export interface Interest {
  readonly readable: boolean;
  readonly writable: boolean;
}

/** Calls `onReady` while the descriptor is ready for what is of interest. Dispose it before closing the descriptor. */
export class DescriptorPoll implements Disposable {
  readonly #handle: node.PollHandle;
  readonly #onReady: () => void;
  #interest: Interest = { readable: false, writable: false };
  #closed = false;

  constructor(fd: number, interest: Interest, onReady: () => void) {
    this.#onReady = onReady;
    this.#interest = interest;
    this.#handle = node.poll(fd, { ...interest }, () => this.#wake());
  }

  set(interest: Interest): void {
    if (this.#closed || (interest.readable === this.#interest.readable && interest.writable === this.#interest.writable)) return;
    this.#interest = interest;
    if (interest.readable || interest.writable) this.#handle.start({ ...interest }, () => this.#wake());
    else this.#handle.stop();
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#handle.close();
  }

  /**
   * The native callback runs outside Node's callback scope: promises settled in it would wait for some other event.
   * An immediate runs in the same turn of the loop, and inside the scope.
   */
  #wake(): void {
    setImmediate(() => {
      if (!this.#closed) this.#onReady();
    });
  }
}
