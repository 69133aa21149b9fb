/**
 * A transport whose writes never keep node:http2 from reading. A session of node:http2 stops reading while a write is under way; two such
 * sessions that both send more than the kernel buffers then wait for each other for ever. It is enough that one end always reads, so the
 * client's end of a tunnel runs over this.
 */
import { Duplex } from "node:stream";
import { MeshError } from "@fairway/runtime";

/** Unsent bytes above which writes wait for the network, as long as nothing waits to be read. */
const calmBytes = 512 * 1024;
/** Unsent bytes above which writes wait whatever there is to read: the connection window and room for control frames. */
const mostBytes = 17 * 1024 * 1024;

type Done = (error?: Error | null) => void;

export class UnblockedTransport extends Duplex {
  readonly #transport: Duplex;
  #held: Done | undefined;

  constructor(transport: Duplex) {
    super({ allowHalfOpen: true, emitClose: true });
    this.#transport = transport;
    transport.on("data", (chunk: Buffer) => {
      if (!this.push(chunk)) transport.pause();
      if (this.readableFlowing !== true && transport.writableLength < mostBytes) this.#release();
    });
    transport.on("drain", () => this.#release());
    transport.once("end", () => this.push(null));
    transport.once("error", (error) => this.destroy(error));
    transport.once("close", () => this.destroy());
    if (transport.destroyed) this.destroy();
  }

  override _read(): void {
    this.#transport.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#transport.write(chunk);
    this.#settle(done);
  }

  override _writev(chunks: readonly { chunk: Buffer }[], done: Done): void {
    this.#transport.cork();
    for (const { chunk } of chunks) this.#transport.write(chunk);
    this.#transport.uncork();
    this.#settle(done);
  }

  override _final(done: Done): void {
    this.#transport.end();
    done();
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#transport.destroy();
    this.#held?.(error ?? new MeshError("HBONE_TUNNEL_LOST", "the transport was closed"));
    this.#held = undefined;
    done(error);
  }

  #settle(done: Done): void {
    const unsent = this.#transport.writableLength;
    if (unsent < calmBytes || (unsent < mostBytes && this.readableLength > 0)) done();
    else this.#held = done;
  }

  #release(): void {
    const held = this.#held;
    this.#held = undefined;
    held?.();
  }
}
