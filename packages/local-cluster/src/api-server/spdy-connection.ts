/**
 * The server's side of SPDY/3.1, as much of it as kubectl's port-forward tunnels through a WebSocket: streams opened by the
 * client, data both ways, pings. No flow control, as in the client. Bytes in by `receive`, bytes out by `send`.
 */
import { constants, createDeflate, createInflate, type Deflate, type Inflate } from "node:zlib";
import { MeshError } from "@fairway/runtime";
import { spdyDictionary } from "./spdy-dictionary.ts";

const frameTypes = { synStream: 1, synReply: 2, rstStream: 3, ping: 6 } as const;
const finFlag = 1;
/** Larger frames are refused; the client sends at most 32 KiB of data in one. */
const maxFrameBytes = 1024 * 1024;
/** Larger header blocks, after decompression, are refused. */
const maxHeaderBytes = 16_384;
/** Streams open at once: two for each forwarded connection. */
const maxStreams = 512;

export interface SpdyStream {
  readonly id: number;
  readonly headers: ReadonlyMap<string, string>;
  /** Sends data; `sent` is called when it left. */
  write(chunk: Uint8Array, sent?: () => void): void;
  /** Nothing more will be sent. */
  end(): void;
}

export interface SpdyHandler {
  /** A stream the client opened. */
  opened(stream: SpdyStream): void;
  data(stream: SpdyStream, chunk: Buffer): void;
  /** The client sends nothing more on the stream. */
  ended(stream: SpdyStream): void;
  /** The client gave the stream up. */
  reset(stream: SpdyStream): void;
}

export class SpdyConnection implements Disposable {
  readonly #send: (bytes: Buffer, sent?: () => void) => void;
  readonly #handler: SpdyHandler;
  readonly #streams = new Map<number, SpdyStream>();
  readonly #inflate: Inflate;
  readonly #deflate: Deflate;
  #rest: Buffer = Buffer.alloc(0);

  constructor(send: (bytes: Buffer, sent?: () => void) => void, handler: SpdyHandler) {
    this.#send = send;
    this.#handler = handler;
    const dictionary = spdyDictionary();
    this.#inflate = createInflate({ dictionary, finishFlush: constants.Z_SYNC_FLUSH });
    this.#deflate = createDeflate({ dictionary });
    // A broken block shows as the failure of its own write.
    this.#inflate.on("error", () => undefined);
    this.#deflate.on("error", () => undefined);
  }

  [Symbol.dispose](): void {
    this.#inflate.close();
    this.#deflate.close();
    this.#streams.clear();
  }

  /** Takes the next bytes; resolves when they are handled. Rejects for bytes that are no SPDY: close the connection then. */
  async receive(chunk: Buffer): Promise<void> {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= 8) {
      const length = this.#rest.readUIntBE(5, 3);
      if (length > maxFrameBytes) throw malformed("a frame is too large");
      if (this.#rest.length < 8 + length) return;
      const frame = this.#rest.subarray(0, 8 + length);
      this.#rest = this.#rest.subarray(8 + length);
      if ((frame[0] ?? 0) >= 0x80) await this.#control(frame.readUInt16BE(2), frame[4] ?? 0, frame.subarray(8));
      else this.#data(frame.readUInt32BE(0), frame[4] ?? 0, frame.subarray(8));
    }
  }

  async #control(type: number, flags: number, payload: Buffer): Promise<void> {
    switch (type) {
      case frameTypes.synStream:
        if (payload.length < 10) throw malformed("a SYN_STREAM is too short");
        await this.#open(payload.readUInt32BE(0) & 0x7fffffff, flags, payload.subarray(10));
        break;
      case frameTypes.rstStream: {
        if (payload.length < 8) throw malformed("a RST_STREAM is too short");
        const stream = this.#streams.get(payload.readUInt32BE(0) & 0x7fffffff);
        if (stream === undefined) break;
        this.#streams.delete(stream.id);
        this.#handler.reset(stream);
        break;
      }
      case frameTypes.ping:
        if (payload.length === 4) this.#send(controlFrame(frameTypes.ping, 0, payload));
        break;
      default:
      // SETTINGS, GOAWAY, HEADERS and WINDOW_UPDATE change nothing for what is forwarded.
    }
  }

  async #open(id: number, flags: number, block: Buffer): Promise<void> {
    const headers = parseHeaders(await this.#decompressed(block));
    if (this.#streams.has(id) || this.#streams.size >= maxStreams) throw malformed("a stream opens twice, or too many are open");
    const stream: SpdyStream = {
      id,
      headers,
      write: (chunk, sent) => this.#send(dataFrame(id, 0, chunk), sent),
      end: () => this.#send(dataFrame(id, finFlag, Buffer.alloc(0))),
    };
    this.#streams.set(id, stream);
    const number = Buffer.alloc(4);
    number.writeUInt32BE(id);
    this.#send(controlFrame(frameTypes.synReply, 0, Buffer.concat([number, await this.#compressed(Buffer.alloc(4))])));
    this.#handler.opened(stream);
    if ((flags & finFlag) !== 0) this.#handler.ended(stream);
  }

  #data(id: number, flags: number, payload: Buffer): void {
    const stream = this.#streams.get(id);
    if (stream === undefined) return;
    if (payload.length > 0) this.#handler.data(stream, payload);
    if ((flags & finFlag) !== 0) this.#handler.ended(stream);
  }

  /** One header block out of the connection's one compressed stream. */
  async #decompressed(block: Buffer): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let total = 0;
    const collect = (chunk: Buffer): void => {
      total += chunk.length;
      if (total <= maxHeaderBytes) chunks.push(chunk);
    };
    this.#inflate.on("data", collect);
    try {
      await written(this.#inflate, block);
    } finally {
      this.#inflate.off("data", collect);
    }
    if (total > maxHeaderBytes) throw malformed("a header block is too large");
    return Buffer.concat(chunks);
  }

  async #compressed(block: Buffer): Promise<Buffer> {
    const chunks: Buffer[] = [];
    const collect = (chunk: Buffer): void => void chunks.push(chunk);
    this.#deflate.on("data", collect);
    await written(this.#deflate, block);
    // A connection that is closed meanwhile never calls back.
    await new Promise<void>((resolve) => {
      this.#deflate.once("close", resolve);
      this.#deflate.flush(constants.Z_SYNC_FLUSH, () => {
        this.#deflate.off("close", resolve);
        resolve();
      });
    });
    this.#deflate.off("data", collect);
    return Buffer.concat(chunks);
  }
}

/** A stream that breaks or is closed never calls back for the write under way: its `close` does. */
function written(stream: Inflate | Deflate, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    const broken = (): void => reject(malformed("a header block does not decompress"));
    if (stream.destroyed) return broken();
    stream.once("close", broken);
    stream.write(bytes, (error) => {
      stream.off("close", broken);
      if (error === null || error === undefined) setImmediate(resolve);
      else broken();
    });
  });
}

function parseHeaders(block: Buffer): ReadonlyMap<string, string> {
  let at = 0;
  const number = (): number => {
    if (at + 4 > block.length) throw malformed("a header block is cut short");
    at += 4;
    return block.readUInt32BE(at - 4);
  };
  const text = (): string => {
    const length = number();
    if (at + length > block.length) throw malformed("a header block is cut short");
    at += length;
    return block.toString("utf8", at - length, at);
  };
  const headers = new Map<string, string>();
  for (let left = number(); left > 0; left -= 1) {
    const name = text().toLowerCase();
    headers.set(name, text());
  }
  return headers;
}

function controlFrame(type: number, flags: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt16BE(0x8003, 0);
  head.writeUInt16BE(type, 2);
  head.writeUInt8(flags, 4);
  head.writeUIntBE(payload.length, 5, 3);
  return Buffer.concat([head, payload]);
}

function dataFrame(id: number, flags: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(id, 0);
  head.writeUInt8(flags, 4);
  head.writeUIntBE(payload.length, 5, 3);
  return Buffer.concat([head, payload]);
}

function malformed(why: string): MeshError {
  return new MeshError("LOCAL_CLUSTER_API_SPDY", `the tunnelled connection is no SPDY/3.1: ${why}`);
}
