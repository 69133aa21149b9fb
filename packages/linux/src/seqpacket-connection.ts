/**
 * One connection of a SOCK_SEQPACKET socket: whole messages, each with the descriptors that came along.
 * States: open until the peer ends, something fails, or close() is called; closed is final.
 */
import { closeSync } from "node:fs";
import { MeshError } from "@fairway/runtime";
import { DescriptorPoll } from "./descriptor-poll.ts";
import { closeDescriptor, receiveMessage, sendMessage } from "./system-calls.ts";

/** Received messages waiting to be taken; beyond it the kernel's own buffer fills and the peer waits. */
const inboxMessages = 64;
/** Sends waiting for their turn. */
const outboxMessages = 64;
/** The receive buffer of the ZDS protocol (ztunnel contract 4.4). */
export const defaultMessageBytes = 1024;
/** Descriptors one message may carry; the kernel drops more and says so, which is an error here. */
const descriptorLimit = 8;

export interface SeqpacketMessage {
  readonly bytes: Uint8Array;
  /** Owned by whoever takes the message: close what is not kept. */
  readonly fds: readonly number[];
}

export interface SeqpacketOptions {
  /** The longest message that is received; a longer one ends the connection. 1024 unless told. */
  readonly messageBytes?: number;
  /** What a peer is told whose message was too long or carried too many descriptors, before the connection ends; nothing unless told. */
  readonly truncatedAnswer?: Uint8Array;
}

interface Waiter {
  readonly settle: (message: SeqpacketMessage | undefined) => void;
  readonly fail: (reason: unknown) => void;
}

interface Pending {
  readonly bytes: Uint8Array;
  readonly fds: readonly number[];
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

export class SeqpacketConnection implements AsyncDisposable {
  /** Resolves when the connection is over, with the error that ended it or with undefined. Never rejects. */
  readonly closed: Promise<MeshError | undefined>;
  readonly #fd: number;
  readonly #buffer: Buffer;
  readonly #truncatedAnswer: Uint8Array | undefined;
  readonly #poll: DescriptorPoll;
  readonly #inbox: SeqpacketMessage[] = [];
  readonly #waiters: Waiter[] = [];
  readonly #outbox: Pending[] = [];
  readonly #onClosed: (failure: MeshError | undefined) => void;
  #open = true;
  #failure: MeshError | undefined;

  /** Takes over `fd`. */
  constructor(fd: number, { messageBytes = defaultMessageBytes, truncatedAnswer }: SeqpacketOptions = {}) {
    const { promise, resolve } = Promise.withResolvers<MeshError | undefined>();
    this.closed = promise;
    this.#onClosed = resolve;
    this.#fd = fd;
    this.#buffer = Buffer.alloc(messageBytes);
    this.#truncatedAnswer = truncatedAnswer;
    this.#poll = new DescriptorPoll(fd, { readable: true, writable: false }, () => this.#ready());
  }

  get isOpen(): boolean {
    return this.#open;
  }

  /**
   * The next message, or undefined once the peer ended and everything is taken. Rejects with the signal's reason, or with the
   * error that ended the connection (LINUX_SEQPACKET_TRUNCATED, LINUX_SEQPACKET_FAILED).
   */
  receive({ signal }: { readonly signal: AbortSignal }): Promise<SeqpacketMessage | undefined> {
    if (signal.aborted) return Promise.reject(signal.reason);
    const message = this.#inbox.shift();
    if (message !== undefined) {
      this.#updateInterest();
      return Promise.resolve(message);
    }
    if (!this.#open) return this.#failure === undefined ? Promise.resolve(undefined) : Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
        reject(signal.reason);
      };
      const forget = (): void => signal.removeEventListener("abort", onAbort);
      const waiter: Waiter = {
        settle: (taken) => {
          forget();
          resolve(taken);
        },
        fail: (reason) => {
          forget();
          reject(reason);
        },
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiters.push(waiter);
    });
  }

  /** Every message until the peer ends. Leaving the loop leaves the connection open. */
  async *messages({ signal }: { readonly signal: AbortSignal }): AsyncGenerator<SeqpacketMessage, void, undefined> {
    for (;;) {
      const message = await this.receive({ signal });
      if (message === undefined) return;
      yield message;
    }
  }

  /**
   * Sends one message; resolves when the kernel has it. The descriptors stay the caller's. Messages leave in the order of the calls.
   * Rejects with LINUX_SEQPACKET_CLOSED, LINUX_SEQPACKET_FULL (too many sends wait), LINUX_SEQPACKET_FAILED, or the signal's reason.
   */
  send(bytes: Uint8Array, fds: readonly number[], { signal }: { readonly signal: AbortSignal }): Promise<void> {
    if (signal.aborted) return Promise.reject(signal.reason);
    // The peer could not tell an empty message from the end of the stream.
    if (bytes.length === 0) return Promise.reject(new MeshError("LINUX_SEQPACKET_EMPTY", "an empty message cannot be sent"));
    if (!this.#open) return Promise.reject(this.#failure ?? new MeshError("LINUX_SEQPACKET_CLOSED", "the connection is closed"));
    if (this.#outbox.length >= outboxMessages) {
      return Promise.reject(new MeshError("LINUX_SEQPACKET_FULL", `${outboxMessages} messages already wait for a peer that does not read`));
    }
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        const index = this.#outbox.indexOf(pending);
        if (index < 0) return;
        this.#outbox.splice(index, 1);
        this.#updateInterest();
        reject(signal.reason);
      };
      const forget = (): void => signal.removeEventListener("abort", onAbort);
      const pending: Pending = {
        bytes,
        fds,
        resolve: () => {
          forget();
          resolve();
        },
        reject: (reason) => {
          forget();
          reject(reason);
        },
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#outbox.push(pending);
      this.#flush();
    });
  }

  /** Ends the connection; messages that nobody took are dropped and their descriptors closed. */
  close(): void {
    this.#end(undefined);
    for (const message of this.#inbox.splice(0)) closeDescriptors(message.fds);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  #ready(): void {
    this.#flush();
    this.#fill();
  }

  /** Takes what the kernel holds, as far as there is room. */
  #fill(): void {
    try {
      while (this.#open && this.#inbox.length < inboxMessages) {
        const received = receiveMessage(this.#fd, this.#buffer, descriptorLimit);
        if (received === undefined) break;
        if (received.truncated) {
          closeDescriptors(received.descriptors);
          // As much as the kernel takes: a peer that does not read misses it.
          if (this.#truncatedAnswer !== undefined) sendMessage(this.#fd, this.#truncatedAnswer, []);
          this.#end(new MeshError("LINUX_SEQPACKET_TRUNCATED", `a message had more than ${this.#buffer.length} bytes or ${descriptorLimit} descriptors`));
          return;
        }
        if (received.length === 0) {
          closeDescriptors(received.descriptors);
          this.#end(undefined);
          return;
        }
        this.#deliver({ bytes: Uint8Array.from(this.#buffer.subarray(0, received.length)), fds: received.descriptors });
      }
    } catch (cause) {
      this.#end(new MeshError("LINUX_SEQPACKET_FAILED", "receiving failed; did the peer go away?", { cause }));
      return;
    }
    this.#updateInterest();
  }

  #deliver(message: SeqpacketMessage): void {
    const waiter = this.#waiters.shift();
    if (waiter === undefined) this.#inbox.push(message);
    else waiter.settle(message);
  }

  #flush(): void {
    try {
      for (let next = this.#outbox[0]; next !== undefined; next = this.#outbox[0]) {
        if (!sendMessage(this.#fd, next.bytes, next.fds)) break;
        this.#outbox.shift();
        next.resolve();
      }
    } catch (cause) {
      // The peer may have answered before it went away: what it said is still to be read.
      const failure = new MeshError("LINUX_SEQPACKET_FAILED", "sending failed; did the peer go away?", { cause });
      for (const pending of this.#outbox.splice(0)) pending.reject(failure);
      this.#fill();
      this.#end(failure);
      return;
    }
    this.#updateInterest();
  }

  #updateInterest(): void {
    if (this.#open) this.#poll.set({ readable: this.#inbox.length < inboxMessages, writable: this.#outbox.length > 0 });
  }

  #end(failure: MeshError | undefined): void {
    if (!this.#open) return;
    this.#open = false;
    this.#failure = failure;
    this.#poll[Symbol.dispose]();
    closeDescriptor(this.#fd);
    const gone = failure ?? new MeshError("LINUX_SEQPACKET_CLOSED", "the connection was closed");
    for (const pending of this.#outbox.splice(0)) pending.reject(gone);
    for (const waiter of this.#waiters.splice(0)) {
      if (failure === undefined) waiter.settle(undefined);
      else waiter.fail(failure);
    }
    this.#onClosed(failure);
  }
}

/** Closes descriptors that came in a message; one that is closed already is left alone. */
export function closeDescriptors(fds: readonly number[]): void {
  for (const fd of fds) {
    try {
      closeSync(fd);
    } catch {
      // Closed already.
    }
  }
}
