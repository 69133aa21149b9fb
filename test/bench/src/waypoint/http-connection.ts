/** One keep-alive HTTP/1.1 connection of the load generator, one request at a time: the least work that still reads answers by their framing. */
import type { Duplex } from "node:stream";
import { bodyBytes, service } from "./measures.ts";

const headEnd = Buffer.from("\r\n\r\n");
const block = Buffer.alloc(256 * 1024, 7);
const host = `${service.hostname}:${service.port}`;

export class HttpConnection {
  /** Answers other than 200, and connections that ended. */
  failures = 0;
  readonly #stream: Duplex;
  #head: Buffer = Buffer.alloc(0);
  #left = -1;
  #chunked = false;
  #received = 0;
  #finish: ((bytes: number) => void) | undefined;

  constructor(stream: Duplex) {
    this.#stream = stream;
    stream.on("data", (chunk: Buffer) => this.#take(chunk));
    stream.on("error", () => this.#broken());
    stream.on("close", () => this.#broken());
  }

  /** Bytes of the answer's body. */
  get(path: string): Promise<number> {
    const answered = this.#answer();
    this.#stream.write(`GET ${path} HTTP/1.1\r\nhost: ${host}\r\nuser-agent: bench\r\naccept: */*\r\n\r\n`);
    return answered;
  }

  /** Sends so many bytes; resolves with the number once they were answered. */
  async put(path: string, bytes: number): Promise<number> {
    const answered = this.#answer();
    this.#stream.write(`PUT ${path} HTTP/1.1\r\nhost: ${host}\r\nuser-agent: bench\r\ncontent-length: ${bytes}\r\n\r\n`);
    for (let left = bytes; left > 0; left -= block.length) {
      const more = this.#stream.write(left >= block.length ? block : block.subarray(0, left));
      if (!more) await new Promise<void>((resolve) => this.#stream.once("drain", resolve));
    }
    await answered;
    return bytes;
  }

  close(): void {
    this.#stream.removeAllListeners("close");
    this.#stream.destroy();
  }

  #answer(): Promise<number> {
    return new Promise((resolve) => {
      if (this.#stream.destroyed) {
        this.failures++;
        setTimeout(resolve, 1, 0);
      } else this.#finish = resolve;
    });
  }

  #take(chunk: Buffer): void {
    if (this.#left >= 0 || this.#chunked) {
      this.#takeBody(chunk);
      return;
    }
    this.#head = this.#head.length === 0 ? chunk : Buffer.concat([this.#head, chunk]);
    const end = this.#head.indexOf(headEnd);
    if (end < 0) return;
    const head = this.#head.toString("latin1", 0, end).toLowerCase();
    const rest = this.#head.subarray(end + headEnd.length);
    this.#head = Buffer.alloc(0);
    if (!head.startsWith("http/1.1 200")) this.failures++;
    const length = /\ncontent-length: *(\d+)/.exec(head)?.[1];
    this.#chunked = length === undefined;
    this.#left = Number(length ?? 0);
    this.#received = 0;
    this.#takeBody(rest);
  }

  #takeBody(chunk: Buffer): void {
    this.#received += chunk.length;
    if (this.#chunked) {
      // The last bytes of a chunked body are always these; the bench's bodies do not contain them.
      if (!chunk.subarray(-5).equals(lastChunk)) return;
    } else {
      this.#left -= chunk.length;
      if (this.#left > 0) return;
    }
    this.#chunked = false;
    this.#left = -1;
    const finish = this.#finish;
    this.#finish = undefined;
    finish?.(this.#received);
  }

  #broken(): void {
    if (this.#finish === undefined) return;
    this.failures++;
    this.#finish(0);
    this.#finish = undefined;
  }
}

const lastChunk = Buffer.from("0\r\n\r\n");
export const smallBody: Buffer = Buffer.alloc(bodyBytes, "x");
