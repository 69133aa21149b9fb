/**
 * The one two-way copy: half-close in both directions, back-pressure, byte counts, and one outcome (ztunnel contract 1.8).
 * A direction ends when its FIN went out, or when either end cannot go on; the copy ends when both directions did.
 * There is no idle timeout here: whoever wants one aborts the signal.
 */
import type { Duplex } from "node:stream";
import { errorCode, MeshError } from "@fairway/runtime";
import type { PipeOutcome } from "./engine.ts";
import { noteBuffer } from "./young-generation.ts";

export interface PipeOptions {
  /** Aborting destroys both ends at once. */
  readonly signal: AbortSignal;
  /** Bytes moved since the last call: a→b first, b→a second. Called per chunk; keep it cheap. */
  readonly onBytes?: ((sent: number, received: number) => void) | undefined;
}

/** What differs between a plain socket and a stream of a tunnel. */
export interface FarEnd {
  /** Asked once, at the end, with the error the far end emitted, if it did: what to report, undefined when it was a clean end. */
  failure(error: Error | undefined): Error | undefined;
  /** Lets go of the far end after both directions ended. */
  release(): void;
  /** Breaks the far end off. */
  abort(): void;
  /** Gathers the writes of a turn towards the near end into one. */
  readonly gather: boolean;
  /** Goes on reading, and drops what it reads, when the near end is gone: it tells of its own end only those who read. */
  readonly readsForNobody: boolean;
}

/** Chunks from this size on announce more of their kind in the same turn; smaller ones are requests and replies, which nothing delays. */
const bulkBytes = 4 * 1024;

/** Ways in which a TCP peer vanishes; to a proxy they are all the end of the bytes. */
export const hangUps: ReadonlySet<string> = new Set([
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
  "ENOTCONN",
  "ERR_STREAM_DESTROYED",
  "ERR_STREAM_PREMATURE_CLOSE",
  "ERR_STREAM_WRITE_AFTER_END",
]);

/**
 * Copies between two connections until both directions ended. Sockets must allow half-open (`allowHalfOpen: true`).
 * Never rejects. Both are destroyed when it resolves; `sent` counts a→b.
 */
export function pipe(a: Duplex, b: Duplex, options: PipeOptions): Promise<PipeOutcome> {
  return copy(a, b, options, {
    failure: socketFailure,
    release: () => void b.destroy(),
    abort: () => void b.destroy(),
    gather: false,
    readsForNobody: false,
  });
}

/** The same copy where the far end is not a plain socket. */
export function copy(near: Duplex, far: Duplex, options: PipeOptions, farEnd: FarEnd): Promise<PipeOutcome> {
  return new Promise((resolve) => new TwoWayCopy(near, far, options, farEnd, resolve).start());
}

function socketFailure(error: Error | undefined): Error | undefined {
  return error === undefined || hangUps.has(errorCode(error) ?? "") ? undefined : error;
}

class TwoWayCopy {
  readonly #near: Duplex;
  readonly #far: Duplex;
  readonly #signal: AbortSignal;
  readonly #farEnd: FarEnd;
  readonly #resolve: (outcome: PipeOutcome) => void;
  readonly #outward: Flow;
  readonly #inward: Flow;
  #nearError: Error | undefined;
  #farError: Error | undefined;
  #settled = false;

  constructor(near: Duplex, far: Duplex, { signal, onBytes }: PipeOptions, farEnd: FarEnd, resolve: (outcome: PipeOutcome) => void) {
    this.#near = near;
    this.#far = far;
    this.#signal = signal;
    this.#farEnd = farEnd;
    this.#resolve = resolve;
    this.#outward = new Flow(near, far, plain, this.#onOver, onBytes === undefined ? undefined : (bytes) => onBytes(bytes, 0));
    this.#inward = new Flow(far, near, farEnd, this.#onOver, onBytes === undefined ? undefined : (bytes) => onBytes(0, bytes));
  }

  start(): void {
    // The error listeners stay for good: a late error on an abandoned stream must not become an uncaught exception.
    this.#near.on("error", this.#onNearError);
    this.#far.on("error", this.#onFarError);
    if (this.#signal.aborted) {
      this.#onAbort();
      return;
    }
    this.#signal.addEventListener("abort", this.#onAbort, { once: true });
    this.#near.once("close", this.#onNearClose);
    this.#far.once("close", this.#onFarClose);
    this.#outward.start();
    this.#inward.start();
    if (this.#near.destroyed) this.#onNearClose();
    if (this.#far.destroyed) this.#onFarClose();
  }

  readonly #onNearError = (error: Error): void => {
    this.#nearError ??= error;
  };

  readonly #onFarError = (error: Error): void => {
    this.#farError ??= error;
  };

  readonly #onNearClose = (): void => {
    this.#inward.sinkClosed();
    this.#outward.sourceClosed();
  };

  readonly #onFarClose = (): void => {
    this.#outward.sinkClosed();
    this.#inward.sourceClosed();
  };

  readonly #onOver = (): void => {
    if (this.#settled || !this.#outward.over || !this.#inward.over) return;
    this.#settle(socketFailure(this.#nearError) ?? this.#farEnd.failure(this.#farError));
    this.#near.destroy();
    this.#farEnd.release();
  };

  readonly #onAbort = (): void => {
    if (this.#settled) return;
    this.#settle(MeshError.from(this.#signal.reason, "HBONE_ABORTED"));
    this.#farEnd.abort();
    this.#near.destroy();
  };

  #settle(error: Error | undefined): void {
    this.#settled = true;
    this.#signal.removeEventListener("abort", this.#onAbort);
    this.#near.off("close", this.#onNearClose);
    this.#far.off("close", this.#onFarClose);
    this.#outward.stop();
    this.#inward.stop();
    this.#resolve({ sent: this.#outward.bytes, received: this.#inward.bytes, error });
  }
}

type FlowOptions = Pick<FarEnd, "gather" | "readsForNobody">;
const plain: FlowOptions = { gather: false, readsForNobody: false };

/** One direction. `over` turns true once, and `onOver` is called then. */
class Flow {
  bytes = 0;
  over = false;
  readonly #source: Duplex;
  readonly #sink: Duplex;
  readonly #options: FlowOptions;
  readonly #onOver: () => void;
  readonly #onBytes: ((bytes: number) => void) | undefined;
  #gathering = false;

  constructor(source: Duplex, sink: Duplex, options: FlowOptions, onOver: () => void, onBytes: ((bytes: number) => void) | undefined) {
    this.#source = source;
    this.#sink = sink;
    this.#options = options;
    this.#onOver = onOver;
    this.#onBytes = onBytes;
  }

  start(): void {
    this.#sink.on("drain", this.#onDrain);
    this.#sink.once("finish", this.#finish);
    if (this.#sink.writableFinished) this.#finish();
    if (this.#source.readableEnded) this.#onEnd();
    this.#source.once("end", this.#onEnd);
    this.#source.on("data", this.#onData);
  }

  stop(): void {
    this.#sink.off("drain", this.#onDrain);
    this.#sink.off("finish", this.#finish);
    this.#source.off("end", this.#onEnd);
    this.#source.off("data", this.#onData);
  }

  /** The source is gone without a FIN: what arrived still goes out, then the FIN. */
  sourceClosed(): void {
    if (this.over || this.#source.readableEnded) return;
    for (let chunk: unknown = this.#source.read(); Buffer.isBuffer(chunk); chunk = this.#source.read()) this.#write(chunk);
    this.#sink.end();
  }

  sinkClosed(): void {
    this.#source.off("data", this.#onData);
    if (this.#options.readsForNobody) this.#source.resume();
    else this.#source.pause();
    this.#finish();
  }

  readonly #onData = (chunk: Buffer): void => {
    noteBuffer(chunk.length);
    if (!this.#sink.writable) {
      // The peer closed this direction; nobody will read what the source still sends.
      this.sinkClosed();
      return;
    }
    if (!this.#write(chunk)) this.#source.pause();
  };

  #write(chunk: Buffer): boolean {
    if (!this.#sink.writable) return true;
    this.bytes += chunk.length;
    this.#onBytes?.(chunk.length);
    if (this.#options.gather && !this.#gathering && chunk.length >= bulkBytes) {
      this.#gathering = true;
      this.#sink.cork();
      setImmediate(this.#release);
    }
    return this.#sink.write(chunk);
  }

  readonly #release = (): void => {
    this.#gathering = false;
    this.#sink.uncork();
  };

  readonly #onDrain = (): void => {
    this.#source.resume();
  };

  readonly #onEnd = (): void => {
    this.#sink.end();
  };

  readonly #finish = (): void => {
    if (this.over) return;
    this.over = true;
    this.#onOver();
  };
}
