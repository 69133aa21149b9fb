/** DNS over TCP: each message behind its length (RFC 1035 section 4.2.2). Holds one message and one chunk at a time, however bytes arrive. */

const lengthBytes = 2;

export class DnsFrames {
  #chunk: Uint8Array = new Uint8Array(0);
  #at = 0;
  #length = Buffer.alloc(lengthBytes);
  #message: Uint8Array | undefined;
  #filled = 0;

  /** The next bytes of the stream. What the last ones held must have been read. */
  feed(chunk: Uint8Array): void {
    this.#chunk = chunk;
    this.#at = 0;
  }

  /** The next whole message; undefined when more bytes are needed. */
  next(): Uint8Array | undefined {
    if (this.#message === undefined) {
      if (!this.#fill(this.#length)) return undefined;
      this.#message = new Uint8Array(this.#length.readUInt16BE());
      this.#filled = 0;
    }
    const message = this.#message;
    if (!this.#fill(message)) return undefined;
    this.#message = undefined;
    this.#filled = 0;
    return message;
  }

  #fill(into: Uint8Array): boolean {
    const taken = this.#chunk.subarray(this.#at, this.#at + into.length - this.#filled);
    into.set(taken, this.#filled);
    this.#at += taken.length;
    this.#filled += taken.length;
    return this.#filled === into.length;
  }
}

/** A message as it is sent. */
export function dnsFrame(message: Uint8Array): Uint8Array {
  const frame = Buffer.alloc(lengthBytes + message.length);
  frame.writeUInt16BE(message.length);
  frame.set(message, lengthBytes);
  return frame;
}
