/**
 * The copy between an application's socket and a stream, without a duplex in between: half-closes, back-pressure, counts and one outcome, as
 * ../pipe.ts has them for two sockets (ztunnel contract 1.8). A direction is over when its end went out or nobody can take its bytes.
 */
import type { Duplex } from "node:stream";
import { errorCode, MeshError } from "@fairway/runtime";
import type { PipeOutcome } from "../engine.ts";
import { hangUps, type PipeOptions } from "../pipe.ts";
import { noteBuffer } from "../young-generation.ts";
import { errorCodes } from "./error-codes.ts";
import type { ConsumedStream, StreamConsumer } from "./stream-consumer.ts";

/** Pieces that together are shorter are copied into one write; longer ones are gathered by the kernel. */
const joinBytes = 8 * 1024;

export class StreamPipe implements StreamConsumer {
  readonly #stream: ConsumedStream;
  readonly #socket: Duplex;
  readonly #options: PipeOptions;
  readonly #resolve: (outcome: PipeOutcome) => void;
  #sent = 0;
  #received = 0;
  /** Bytes given to the socket that it has not got rid of. */
  #inSocket = 0;
  /** Socket to stream. */
  #outwardOver = false;
  /** Stream to socket. */
  #inwardOver = false;
  #socketError: Error | undefined;
  #settled = false;

  constructor(stream: ConsumedStream, socket: Duplex, options: PipeOptions, resolve: (outcome: PipeOutcome) => void) {
    this.#stream = stream;
    this.#socket = socket;
    this.#options = options;
    this.#resolve = resolve;
  }

  start(): void {
    const socket = this.#socket;
    // Stays for good: a late error of an abandoned socket must not become an uncaught exception.
    socket.on("error", this.#onSocketError);
    if (this.#options.signal.aborted) {
      this.#onAbort();
      return;
    }
    this.#options.signal.addEventListener("abort", this.#onAbort, { once: true });
    this.#stream.attach(this);
    socket.on("drain", this.#onSocketDrain);
    socket.on("finish", this.#onSocketFinish);
    socket.on("close", this.#onSocketClose);
    if (socket.writableFinished) this.#onSocketFinish();
    if (socket.readableEnded) this.#onSocketEnd();
    socket.on("end", this.#onSocketEnd);
    socket.on("data", this.#onSocketData);
    if (socket.destroyed) this.#onSocketClose();
  }

  onData(pieces: readonly Buffer[]): void {
    let bytes = 0;
    for (const piece of pieces) bytes += piece.length;
    const socket = this.#socket;
    if (this.#inwardOver || !socket.writable) {
      // The application closed this direction; the connection's other streams must not pay for what is still sent.
      this.#stream.dropped(bytes);
      this.#inwardDone();
      return;
    }
    this.#received += bytes;
    this.#options.onBytes?.(0, bytes);
    this.#write(pieces, bytes);
    // A socket that is full says `drain` later; until then nothing more is handed to it and the peer's window stays spent.
    if (socket.writableLength < socket.writableHighWaterMark) this.#stream.consumed(bytes);
    else {
      this.#inSocket += bytes;
      this.#stream.hold();
    }
  }

  onEnd(): void {
    this.#endSocket();
  }

  onClosed(): void {
    this.#outwardDone();
    this.#endSocket();
  }

  onSent(): void {
    if (this.#stream.endSent) this.#outwardDone();
    else this.#socket.resume();
  }

  #endSocket(): void {
    // A second `end` would make an error, with its stack, for nobody.
    if (!this.#socket.writableEnded && !this.#socket.destroyed) this.#socket.end();
  }

  #write(pieces: readonly Buffer[], bytes: number): void {
    const [first] = pieces;
    const socket = this.#socket;
    if (first === undefined) return;
    if (pieces.length === 1) socket.write(first);
    else if (bytes <= joinBytes) socket.write(Buffer.concat(pieces, bytes));
    else {
      socket.cork();
      for (const piece of pieces) socket.write(piece);
      socket.uncork();
    }
  }

  readonly #onSocketData = (chunk: Buffer): void => {
    noteBuffer(chunk.length);
    if (this.#stream.closed) {
      this.#socket.pause();
      this.#outwardDone();
      return;
    }
    if (!this.#take(chunk)) this.#socket.pause();
  };

  #take(chunk: Buffer): boolean {
    this.#sent += chunk.length;
    this.#options.onBytes?.(chunk.length, 0);
    return this.#stream.send(chunk);
  }

  readonly #onSocketDrain = (): void => {
    if (this.#inSocket > 0) this.#releaseSocketBytes();
  };

  readonly #onSocketEnd = (): void => {
    this.#stream.end();
    if (this.#stream.endSent || this.#stream.closed) this.#outwardDone();
  };

  readonly #onSocketFinish = (): void => {
    this.#inwardDone();
  };

  readonly #onSocketError = (error: Error): void => {
    this.#socketError ??= error;
  };

  readonly #onSocketClose = (): void => {
    const socket = this.#socket;
    // Gone without a FIN: what arrived still goes out, then the end of the bytes.
    if (!this.#outwardOver && !socket.readableEnded) {
      for (let chunk: unknown = socket.read(); Buffer.isBuffer(chunk); chunk = socket.read()) this.#take(chunk);
      this.#onSocketEnd();
    }
    this.#inwardDone();
  };

  readonly #onAbort = (): void => {
    if (this.#settled) return;
    this.#settle(MeshError.from(this.#options.signal.reason, "HBONE_ABORTED"));
    this.#stream.abort(errorCodes.cancel);
  };

  #outwardDone(): void {
    if (this.#outwardOver) return;
    this.#outwardOver = true;
    this.#finishWhenOver();
  }

  #inwardDone(): void {
    if (this.#inwardOver) return;
    this.#inwardOver = true;
    this.#stream.discard();
    this.#releaseSocketBytes();
    this.#finishWhenOver();
  }

  #releaseSocketBytes(): void {
    const bytes = this.#inSocket;
    this.#inSocket = 0;
    this.#stream.consumed(bytes);
    this.#stream.release();
  }

  #finishWhenOver(): void {
    if (this.#settled || !this.#outwardOver || !this.#inwardOver) return;
    const error = this.#socketError !== undefined && !hangUps.has(errorCode(this.#socketError) ?? "") ? this.#socketError : undefined;
    this.#settle(error ?? this.#stream.failure());
    // Contract 1.8: the peer may still send. A server that said its END_STREAM has no complaint, everybody else cancels.
    this.#stream.abort(this.#stream.side === "server" && this.#stream.endSent ? errorCodes.noError : errorCodes.cancel);
  }

  #settle(error: Error | undefined): void {
    this.#settled = true;
    this.#inwardOver = true;
    this.#outwardOver = true;
    const socket = this.#socket;
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    socket.off("data", this.#onSocketData);
    socket.off("end", this.#onSocketEnd);
    socket.off("drain", this.#onSocketDrain);
    socket.off("finish", this.#onSocketFinish);
    socket.off("close", this.#onSocketClose);
    socket.destroy();
    this.#releaseSocketBytes();
    this.#resolve({ sent: this.#sent, received: this.#received, error });
  }
}
