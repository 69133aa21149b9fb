/** HTTP/2 spoken by hand, for peers that misbehave: frames written and read as bytes (RFC 9113 section 4, RFC 7541). */
import type { Duplex } from "node:stream";

export const frameTypes = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const flags = { endStream: 1, ack: 1, endHeaders: 4, padded: 8 } as const;

export interface RawFrame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

export const preface: Buffer = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
const headerLength = 9;

export function frame(type: number, frameFlags: number, stream: number, payload: Uint8Array = Buffer.alloc(0), length: number = payload.length): Buffer {
  const header = Buffer.alloc(headerLength);
  header.writeUIntBE(length, 0, 3);
  header.writeUInt8(type, 3);
  header.writeUInt8(frameFlags, 4);
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
}

/** A header block of literals without indexing and without Huffman. */
export function headerBlock(fields: readonly (readonly [string, string])[]): Buffer {
  return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.from([0]), literal(name), literal(value)]));
}

function literal(text: string): Buffer {
  const bytes = Buffer.from(text, "latin1");
  return Buffer.concat([integer(bytes.length, 7), bytes]);
}

/** An integer with a prefix of `bits` (RFC 7541 5.1). */
function integer(value: number, bits: number): Buffer {
  const most = 2 ** bits - 1;
  if (value < most) return Buffer.from([value]);
  const bytes = [most];
  let rest = value - most;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  bytes.push(rest);
  return Buffer.from(bytes);
}

export function connectHeaders(stream: number, authority: string, extra: readonly (readonly [string, string])[] = []): Buffer {
  const block = headerBlock([[":method", "CONNECT"], [":authority", authority], ...extra]);
  return frame(frameTypes.headers, flags.endHeaders, stream, block);
}

export function status200(stream: number): Buffer {
  return frame(frameTypes.headers, flags.endHeaders, stream, Buffer.from([0x88]));
}

export function data(stream: number, payload: Uint8Array | string, frameFlags = 0): Buffer {
  return frame(frameTypes.data, frameFlags, stream, typeof payload === "string" ? Buffer.from(payload) : payload);
}

export function rstStream(stream: number, code: number): Buffer {
  return frame(frameTypes.rstStream, 0, stream, uint32(code));
}

export function settings(pairs: readonly (readonly [number, number])[] = []): Buffer {
  const payload = Buffer.alloc(pairs.length * 6);
  for (const [index, [id, value]] of pairs.entries()) {
    payload.writeUInt16BE(id, index * 6);
    payload.writeUInt32BE(value, index * 6 + 2);
  }
  return frame(frameTypes.settings, 0, 0, payload);
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** One end of a connection that says exactly what a test tells it to. Answers SETTINGS unless told not to, and nothing else. */
export class RawPeer {
  readonly frames: RawFrame[] = [];
  ended = false;
  readonly #transport: Duplex;
  readonly #listeners = new Set<() => void>();
  #pending: Buffer = Buffer.alloc(0);
  #prefaceLength: number;

  constructor(transport: Duplex, role: "client" | "server", { acknowledge = true }: { acknowledge?: boolean } = {}) {
    this.#transport = transport;
    this.#prefaceLength = role === "server" ? preface.length : 0;
    transport.on("error", () => {});
    transport.on("data", (chunk: Buffer) => {
      for (const received of this.#parse(chunk)) {
        if (acknowledge && received.type === frameTypes.settings && (received.flags & flags.ack) === 0) this.send(frame(frameTypes.settings, flags.ack, 0));
        this.frames.push(received);
      }
      this.#wake();
    });
    const onEnd = (): void => {
      this.ended = true;
      this.#wake();
    };
    transport.once("end", onEnd).once("close", onEnd);
    this.send(role === "client" ? Buffer.concat([preface, settings()]) : settings());
  }

  send(...bytes: readonly Uint8Array[]): void {
    if (this.#transport.writable) this.#transport.write(Buffer.concat(bytes));
  }

  end(): void {
    this.#transport.end();
  }

  /** The first frame, already here or still to come, that satisfies `accept`; rejects when the connection ends first. */
  async receive(accept: (frame: RawFrame) => boolean): Promise<RawFrame> {
    for (;;) {
      const found = this.frames.find(accept);
      if (found !== undefined) return found;
      if (this.ended) throw new Error("the connection ended before the frame");
      await this.#changed();
    }
  }

  /** All DATA of a stream up to END_STREAM or the end of the connection. */
  async receiveAll(stream: number): Promise<string> {
    await this.receive(({ type, stream: id, flags: bits }) => type === frameTypes.data && id === stream && (bits & flags.endStream) !== 0);
    return Buffer.concat(this.frames.filter(({ type, stream: id }) => type === frameTypes.data && id === stream).map(({ payload }) => payload)).toString();
  }

  async closed(): Promise<void> {
    while (!this.ended) await this.#changed();
  }

  #changed(): Promise<void> {
    return new Promise((resolve) => {
      const listener = (): void => {
        this.#listeners.delete(listener);
        resolve();
      };
      this.#listeners.add(listener);
    });
  }

  #wake(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  *#parse(chunk: Buffer): Generator<RawFrame> {
    this.#pending = Buffer.concat([this.#pending, chunk]);
    if (this.#prefaceLength > 0) {
      if (this.#pending.length < this.#prefaceLength) return;
      this.#pending = this.#pending.subarray(this.#prefaceLength);
      this.#prefaceLength = 0;
    }
    while (this.#pending.length >= headerLength) {
      const length = this.#pending.readUIntBE(0, 3);
      if (this.#pending.length < headerLength + length) return;
      const payload = Buffer.from(this.#pending.subarray(headerLength, headerLength + length));
      yield { type: this.#pending.readUInt8(3), flags: this.#pending.readUInt8(4), stream: this.#pending.readUInt32BE(5), payload };
      this.#pending = this.#pending.subarray(headerLength + length);
    }
  }
}
