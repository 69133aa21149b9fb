/**
 * One TCP connection of a DNS client (RFC 7766): questions may be sent without waiting, and answers come as they are found. Reading
 * stops while too many are unanswered, and the connection ends when it is idle, or when its client does not read.
 */
import type { Socket } from "node:net";
import type { Clock, TaskGroup } from "@fairway/runtime";
import { DnsFrames, dnsFrame } from "./dns-frames.ts";

/** Contract 8. A question that has begun must be whole by then, too. */
const idleMs = 5_000;
const maxUnanswered = 32;
/** Answers waiting for a client that asks and does not read. */
const maxUnreadBytes = 256 * 1024;

export interface DnsConnectionOptions {
  readonly respond: (message: Uint8Array) => Promise<Uint8Array | undefined>;
  readonly tasks: TaskGroup;
  readonly clock: Clock;
}

export class DnsConnection {
  readonly #socket: Socket;
  readonly #options: DnsConnectionOptions;
  readonly #frames = new DnsFrames();
  #unanswered = 0;
  #inputEnded = false;
  #draining = false;
  #idle: Disposable | undefined;

  /** Serves a socket that comes paused and half-open. */
  constructor(socket: Socket, options: DnsConnectionOptions) {
    this.#socket = socket;
    this.#options = options;
    socket.on("data", (chunk) => {
      this.#frames.feed(chunk);
      this.#read();
    });
    socket.on("end", () => {
      this.#inputEnded = true;
      this.#finish();
    });
    socket.once("close", () => this.#idle?.[Symbol.dispose]());
    this.#rest();
    socket.resume();
  }

  /** Takes no more questions; ends when the last one is answered. */
  drain(): void {
    this.#draining = true;
    this.#socket.pause();
    this.#finish();
  }

  #read(): void {
    while (!this.#draining && !this.#socket.destroyed && this.#unanswered < maxUnanswered) {
      const message = this.#frames.next();
      if (message === undefined) {
        this.#socket.resume();
        return;
      }
      this.#unanswered += 1;
      this.#idle?.[Symbol.dispose]();
      this.#options.tasks.run("DNS question", () => this.#answer(message));
    }
    this.#socket.pause();
  }

  async #answer(message: Uint8Array): Promise<void> {
    const socket = this.#socket;
    try {
      const answer = await this.#options.respond(message);
      if (answer === undefined || socket.writableLength > maxUnreadBytes) socket.destroy();
      else if (socket.writable) socket.write(dnsFrame(answer));
    } finally {
      this.#unanswered -= 1;
      if (this.#unanswered === 0) this.#rest();
      // What was read and not looked at comes before anything new.
      this.#read();
      this.#finish();
    }
  }

  /** From here the client has so long to ask. */
  #rest(): void {
    this.#idle?.[Symbol.dispose]();
    if (!this.#socket.destroyed) this.#idle = this.#options.clock.schedule(idleMs, () => this.#socket.destroy());
  }

  #finish(): void {
    // The end of the input is seen only once everything before it was looked at.
    if (this.#unanswered === 0 && (this.#draining || this.#inputEnded)) this.#socket.destroySoon();
  }
}
