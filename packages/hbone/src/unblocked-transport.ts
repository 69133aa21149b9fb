/**
 * A transport under node:http2 that avoids two of its defects.
 * A session stops reading while a write is under way; two sessions that both send more than the kernel buffers then wait for each other
 * for ever. It is enough that one end always reads, so the client's end of a tunnel runs over this.
 * Over a stream that is no socket, a session that writes after the peer's FIN fails an assertion of Node and with it the process. Here the
 * peer's FIN is the end of the connection, which it is for HTTP/2, so every such stream is wrapped on both sides.
 */
import { Duplex } from "node:stream";
import { MeshError } from "@fairway/runtime";

/** Unsent bytes above which writes wait for the network, as long as nothing waits to be read. */
const calmBytes = 512 * 1024;
/**
 * Unsent bytes above which writes wait whatever there is to read. Twice the connection window, since a write under way counts whole until
 * its last byte left while the peer opens the window for its first, and room for control frames.
 */
const mostBytes = 33 * 1024 * 1024;
/** Chunks below this are gathered while the network is behind: an answered PING is 17 bytes, but a buffer of its own is many times that. */
const smallBytes = 4 * 1024;
const slabBytes = 64 * 1024;

type Done = (error?: Error | null) => void;

export class UnblockedTransport extends Duplex {
  readonly #transport: Duplex;
  /** What waits for the transport to drain, small chunks gathered in slabs. */
  #backlog: Buffer[] = [];
  #backlogBytes = 0;
  #slab: Buffer = Buffer.alloc(0);
  #slabUsed = 0;
  #held: Done | undefined;
  #ended = false;

  constructor(transport: Duplex) {
    super({ allowHalfOpen: true, emitClose: true });
    this.#transport = transport;
    transport.on("data", (chunk: Buffer) => {
      if (!this.push(chunk)) transport.pause();
      if (this.readableFlowing !== true && this.#unsent < mostBytes) this.#release();
    });
    transport.on("drain", this.#onDrain);
    transport.once("end", () => {
      this.#ended = true;
      if (this.readableLength === 0) this.destroy();
    });
    transport.once("error", (error) => this.destroy(error));
    transport.once("close", () => this.destroy());
    if (transport.destroyed) this.destroy();
  }

  get #unsent(): number {
    return this.#transport.writableLength + this.#backlogBytes;
  }

  override read(size?: number): unknown {
    const chunk: unknown = super.read(size);
    if (this.#ended && this.readableLength === 0) process.nextTick(() => this.destroy());
    return chunk;
  }

  override _read(): void {
    this.#transport.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#send(chunk);
    this.#settle(done);
  }

  override _writev(chunks: readonly { chunk: Buffer }[], done: Done): void {
    this.#transport.cork();
    for (const { chunk } of chunks) this.#send(chunk);
    this.#transport.uncork();
    this.#settle(done);
  }

  override _final(done: Done): void {
    this.#flush();
    this.#transport.end();
    done();
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#transport.destroy();
    this.#backlog = [];
    this.#held?.(error ?? new MeshError("HBONE_TUNNEL_LOST", "the transport was closed"));
    this.#held = undefined;
    done(error);
  }

  #send(chunk: Buffer): void {
    if (this.#backlogBytes === 0 && !this.#transport.writableNeedDrain) {
      this.#transport.write(chunk);
      return;
    }
    this.#backlogBytes += chunk.length;
    if (chunk.length >= smallBytes) {
      this.#closeSlab();
      this.#backlog.push(chunk);
      return;
    }
    if (this.#slabUsed + chunk.length > this.#slab.length) {
      this.#closeSlab();
      this.#slab = Buffer.allocUnsafe(slabBytes);
    }
    this.#slabUsed += chunk.copy(this.#slab, this.#slabUsed);
  }

  #closeSlab(): void {
    if (this.#slabUsed > 0) this.#backlog.push(this.#slab.subarray(0, this.#slabUsed));
    this.#slab = this.#slab.subarray(this.#slabUsed);
    this.#slabUsed = 0;
  }

  readonly #onDrain = (): void => {
    this.#flush();
    this.#release();
  };

  #flush(): void {
    this.#closeSlab();
    if (this.#backlog.length === 0) return;
    const backlog = this.#backlog;
    this.#backlog = [];
    this.#backlogBytes = 0;
    this.#transport.cork();
    for (const chunk of backlog) this.#transport.write(chunk);
    this.#transport.uncork();
  }

  #settle(done: Done): void {
    if (this.#unsent < calmBytes || (this.#unsent < mostBytes && this.readableLength > 0)) done();
    else this.#held = done;
  }

  #release(): void {
    const held = this.#held;
    this.#held = undefined;
    held?.();
  }
}
