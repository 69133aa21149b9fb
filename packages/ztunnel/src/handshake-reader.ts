/** Reads the first bytes of a client that says what it wants; what follows belongs to the connection it asked for, and is given back. */
import type { Socket } from "node:net";
import { ztunnelError } from "./failure.ts";

export class HandshakeReader {
  readonly #socket: Socket;
  readonly #signal: AbortSignal;
  /** At most what was asked for and one chunk. */
  #read: Buffer = Buffer.alloc(0);

  /** The socket is paused whenever nothing is awaited. Every read ends with the signal's reason when that aborts. */
  constructor(socket: Socket, { signal }: { signal: AbortSignal }) {
    this.#socket = socket;
    this.#signal = signal;
  }

  /** Throws ZTUNNEL_CLIENT_GAVE_UP when the client ends before that. */
  async exactly(size: number): Promise<Buffer> {
    while (this.#read.length < size) await this.#more();
    return this.#take(size);
  }

  /** Everything up to `marker`, that included. Throws ZTUNNEL_BAD_REQUEST when it does not come within `most` bytes. */
  async upTo(marker: string, most: number): Promise<Buffer> {
    for (;;) {
      const at = this.#read.indexOf(marker);
      if (at >= 0 && at + marker.length <= most) return this.#take(at + marker.length);
      if (at >= 0 || this.#read.length >= most) throw ztunnelError("ZTUNNEL_BAD_REQUEST", `the client's request is longer than ${most} bytes`);
      await this.#more();
    }
  }

  /** Gives back what was read and not taken. */
  finish(): void {
    if (this.#read.length > 0 && !this.#socket.destroyed) this.#socket.unshift(this.#read);
    this.#read = Buffer.alloc(0);
  }

  #take(size: number): Buffer {
    const taken = this.#read.subarray(0, size);
    this.#read = this.#read.subarray(size);
    return taken;
  }

  #more(): Promise<void> {
    const socket = this.#socket;
    return new Promise((resolve, reject) => {
      const settle = (how: () => void): void => {
        socket.pause();
        socket.off("data", onData);
        socket.off("end", onGone);
        socket.off("close", onGone);
        this.#signal.removeEventListener("abort", onAbort);
        how();
      };
      const onData = (chunk: Buffer): void => {
        this.#read = Buffer.concat([this.#read, chunk]);
        settle(resolve);
      };
      const onGone = (): void => settle(() => reject(gaveUp()));
      const onAbort = (): void => settle(() => reject(this.#signal.reason));
      if (this.#signal.aborted) return reject(this.#signal.reason);
      if (socket.destroyed || socket.readableEnded) return reject(gaveUp());
      this.#signal.addEventListener("abort", onAbort, { once: true });
      socket.once("end", onGone);
      socket.once("close", onGone);
      socket.once("data", onData);
      socket.resume();
    });
  }
}

function gaveUp(): Error {
  return ztunnelError("ZTUNNEL_CLIENT_GAVE_UP", "the client ended before it had said where it wants to go");
}
