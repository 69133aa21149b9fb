/** A stream as a plain duplex, for what speaks another protocol inside it (double HBONE, ztunnel contract 1.10). */
import { Duplex } from "node:stream";
import { MeshError } from "@fairway/runtime";
import { errorCodes, errorName } from "./error-codes.ts";
import type { ConsumedStream, StreamConsumer } from "./stream-consumer.ts";

/** Chunks that together are shorter are copied into one frame. */
const joinBytes = 16 * 1024;

type Done = (error?: Error | null) => void;

export class StreamDuplex extends Duplex implements StreamConsumer {
  readonly #stream: ConsumedStream;
  /** Bytes pushed and not yet read. */
  #unread = 0;
  /** The write or the end that waits for the stream. */
  #pending: Done | undefined;
  /** The peer's END_STREAM came. */
  #ended = false;

  constructor(stream: ConsumedStream) {
    super({ allowHalfOpen: true });
    this.#stream = stream;
    stream.attach(this);
  }

  onData(pieces: readonly Buffer[]): void {
    if (this.destroyed) {
      for (const piece of pieces) this.#stream.consumed(piece.length);
      return;
    }
    let more = true;
    for (const piece of pieces) {
      this.#unread += piece.length;
      more = this.push(piece);
    }
    if (more) this.#settle();
    else this.#stream.hold();
  }

  onEnd(): void {
    this.#ended = true;
    this.push(null);
  }

  onClosed(): void {
    const failure = this.#stream.failure() ?? this.#cut();
    this.#finish(failure ?? null);
    if (failure !== undefined) this.destroy(failure);
    else this.push(null);
  }

  onSent(): void {
    this.#finish(null);
  }

  override _read(): void {
    if (this.#unread === 0) return;
    this.#settle();
    this.#stream.release();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    if (this.#stream.closed) done(this.#stream.failure() ?? closedError());
    else if (this.#stream.send(chunk)) done();
    else this.#pending = done;
  }

  /** Written together, sent together: one frame costs what each of many would. */
  override _writev(chunks: readonly { readonly chunk: Buffer }[], done: Done): void {
    let bytes = 0;
    for (const { chunk } of chunks) bytes += chunk.length;
    const buffers = chunks.map(({ chunk }) => chunk);
    let sent = true;
    for (const buffer of bytes > joinBytes ? buffers : [Buffer.concat(buffers, bytes)]) sent = this.#stream.send(buffer) && sent;
    if (this.#stream.closed) done(this.#stream.failure() ?? closedError());
    else if (sent) done();
    else this.#pending = done;
  }

  override _final(done: Done): void {
    this.#stream.end();
    if (this.#stream.endSent || this.#stream.closed) done();
    else this.#pending = done;
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#finish(error ?? closedError());
    this.#stream.consumed(this.#unread);
    this.#unread = 0;
    this.#stream.abort(errorCodes.cancel);
    done(error);
  }

  /**
   * To a copy of bytes a reset with CANCEL is an end like any other (contract 1.8). A protocol whose messages end with their connection must be
   * able to tell the two apart, or half a message is taken for a whole one.
   */
  #cut(): MeshError | undefined {
    const code = this.#stream.resetCode;
    if (code === undefined || (code === errorCodes.noError && this.#ended)) return undefined;
    const reset = errorName(code);
    return new MeshError("HBONE_RESET", `the peer reset the stream: ${reset}`, { details: { reset } });
  }

  #settle(): void {
    const unread = this.#unread;
    this.#unread = 0;
    this.#stream.consumed(unread);
  }

  #finish(error: Error | null): void {
    const done = this.#pending;
    this.#pending = undefined;
    done?.(error);
  }
}

function closedError(): MeshError {
  return new MeshError("HBONE_RESET", "the stream was closed");
}
