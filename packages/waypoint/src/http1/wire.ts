/** Both directions of the transport under an HTTP/1 connection: bytes that wait to be read, and writes that are gathered. */
import type { Duplex } from "node:stream";

/** Writes of one turn up to this many bytes become one buffer; larger ones are not copied. */
const gatheredBytes = 16 * 1024;
/** Bytes held that nobody wants yet. More would be copied together again with each chunk that arrives. */
const heldBytes = 16 * 1024;
const nothing: Buffer = Buffer.alloc(0);

export interface WireEvents {
  /** There is more to read, or there will be no more (`ended`). */
  onReadable(): void;
  /** The transport is gone, in both directions. Once. */
  onGone(error: Error | undefined): void;
}

export class WireReader {
  /** Bytes that arrived; those before `at` are consumed. */
  bytes: Buffer = nothing;
  at = 0;
  /** The peer sent its FIN. */
  ended = false;
  gone = false;
  readonly #transport: Duplex;
  readonly #highWaterMark: number;
  readonly #events: WireEvents;
  #error: Error | undefined;
  #paused = false;

  constructor(transport: Duplex, highWaterMark: number, events: WireEvents) {
    this.#transport = transport;
    this.#highWaterMark = highWaterMark;
    this.#events = events;
  }

  start(): void {
    const transport = this.#transport;
    // Stays for good: a late error on an abandoned stream must not become an uncaught exception.
    transport.on("error", (error: Error) => {
      this.#error ??= error;
    });
    transport.once("close", this.#onClose);
    if (transport.destroyed) {
      process.nextTick(this.#onClose);
      return;
    }
    transport.on("data", this.#onData);
    transport.once("end", this.#onEnd);
    if (transport.readableEnded) process.nextTick(this.#onEnd);
    else transport.resume();
  }

  /** Whether the end is that of a connection that was cut: an HTTP/2 stream that is reset ends like one that was finished, its code tells. */
  get cut(): boolean {
    const transport: Duplex & { readonly rstCode?: unknown } = this.#transport;
    return transport.errored !== null || (typeof transport.rstCode === "number" && transport.rstCode !== 0);
  }

  get unread(): number {
    return this.bytes.length - this.at;
  }

  /** Says whether bytes are wanted now. A little of what arrives unwanted is held; then the peer has to wait. */
  want(wanted: boolean): void {
    if (wanted || this.unread < Math.min(this.#highWaterMark, heldBytes)) {
      if (!this.#paused) return;
      this.#paused = false;
      if (!this.gone) this.#transport.resume();
    } else if (!this.#paused) {
      this.#paused = true;
      this.#transport.pause();
    }
  }

  /** Drops what waits. */
  discard(): void {
    this.bytes = nothing;
    this.at = 0;
  }

  readonly #onData = (chunk: Buffer): void => {
    if (this.gone) return;
    this.bytes = this.at >= this.bytes.length ? chunk : Buffer.concat([this.at === 0 ? this.bytes : this.bytes.subarray(this.at), chunk]);
    this.at = 0;
    this.#events.onReadable();
  };

  readonly #onEnd = (): void => {
    if (this.gone || this.ended) return;
    this.ended = true;
    this.#events.onReadable();
  };

  readonly #onClose = (): void => {
    if (this.gone) return;
    this.gone = true;
    this.#transport.off("data", this.#onData);
    this.#events.onGone(this.#error ?? undefined);
  };
}

export class WireWriter {
  /** Bytes handed over so far. */
  written = 0;
  /** Called when a writer that was told to hold may go on. */
  onReady: (() => void) | undefined;
  readonly #transport: Duplex;
  readonly #highWaterMark: number;
  #pieces: (Uint8Array | string)[] = [];
  #gathered = 0;
  #scheduled = false;
  #held = false;

  constructor(transport: Duplex, highWaterMark: number) {
    this.#transport = transport;
    this.#highWaterMark = highWaterMark;
    transport.on("drain", this.#release);
  }

  /** Characters beyond latin1 must have been refused before. */
  text(text: string): void {
    this.#add(text);
  }

  bytes(bytes: Uint8Array): void {
    this.#add(bytes);
  }

  /** Asked after writing: false when more should wait for `onReady`. */
  get roomy(): boolean {
    if (this.#transport.writableLength + this.#gathered < this.#highWaterMark) return true;
    this.#held = true;
    return false;
  }

  /** Everything gathered goes out in as few writes as its size allows. */
  readonly flush = (): void => {
    this.#scheduled = false;
    const pieces = this.#pieces;
    if (pieces.length > 0) {
      const total = this.#gathered;
      this.#pieces = [];
      this.#gathered = 0;
      if (this.#transport.writable) this.#send(pieces, total);
    }
    if (this.#held && !this.#transport.writableNeedDrain) this.#release();
  };

  /** Sends the FIN after everything written. */
  end(): void {
    this.flush();
    if (this.#transport.writable) this.#transport.end();
  }

  #add(piece: Uint8Array | string): void {
    if (piece.length === 0) return;
    this.#pieces.push(piece);
    this.#gathered += piece.length;
    this.written += piece.length;
    if (this.#scheduled) return;
    this.#scheduled = true;
    process.nextTick(this.#flushScheduled);
  }

  readonly #flushScheduled = (): void => {
    if (this.#scheduled) this.flush();
  };

  #send(pieces: readonly (Uint8Array | string)[], total: number): void {
    const only = pieces[0];
    if (pieces.length === 1 && only !== undefined) {
      this.#transport.write(typeof only === "string" ? Buffer.from(only, "latin1") : only);
      return;
    }
    if (total <= gatheredBytes) {
      this.#transport.write(joined(pieces, total));
      return;
    }
    this.#transport.cork();
    let small: (Uint8Array | string)[] = [];
    let smallBytes = 0;
    for (const piece of pieces) {
      if (piece.length < gatheredBytes / 4 && smallBytes + piece.length <= gatheredBytes) {
        small.push(piece);
        smallBytes += piece.length;
        continue;
      }
      if (small.length > 0) this.#transport.write(joined(small, smallBytes));
      small = [];
      smallBytes = 0;
      this.#transport.write(typeof piece === "string" ? Buffer.from(piece, "latin1") : piece);
    }
    if (small.length > 0) this.#transport.write(joined(small, smallBytes));
    this.#transport.uncork();
  }

  readonly #release = (): void => {
    if (!this.#held) return;
    this.#held = false;
    this.onReady?.();
  };
}

function joined(pieces: readonly (Uint8Array | string)[], total: number): Buffer {
  const all = Buffer.allocUnsafe(total);
  let at = 0;
  for (const piece of pieces) {
    if (typeof piece === "string") at += all.write(piece, at, "latin1");
    else {
      all.set(piece, at);
      at += piece.length;
    }
  }
  return all;
}
