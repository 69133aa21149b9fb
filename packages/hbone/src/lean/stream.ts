/**
 * One CONNECT stream: its states (RFC 9113 5.1), both of its windows, and what its ends mean for a tunnel (ztunnel contract 1.8).
 * States: open → half closed (either side) → closed; or closed at once by a reset or with the connection.
 */
import type { Duplex } from "node:stream";
import { MeshError } from "@fairway/runtime";
import type { PipeOutcome, TunnelStream } from "../engine.ts";
import type { PipeOptions } from "../pipe.ts";
import { ByteQueue } from "./byte-queue.ts";
import type { Carrier, Passenger } from "./carrier.ts";
import { errorCodes, errorName } from "./error-codes.ts";
import { frameFlags, frameTypes, maxWindow } from "./frames.ts";
import type { ConsumedStream, StreamConsumer } from "./stream-consumer.ts";
import { StreamDuplex } from "./stream-duplex.ts";
import { StreamPipe } from "./stream-pipe.ts";

/** The connection that a stream belongs to. */
export interface StreamOwner {
  readonly side: "client" | "server";
  readonly carrier: Carrier;
  readonly streamWindow: number;
  /** Why the connection is gone; undefined while it lives. */
  lost(): MeshError | undefined;
  /** The stream is closed. `resetHere` when frames of the peer may still be on their way. */
  onStreamClosed(stream: LeanStream, resetHere: boolean): void;
}

const nothing: readonly Buffer[] = [];

export class LeanStream implements TunnelStream, ConsumedStream, Passenger {
  readonly id: number;
  readonly #owner: StreamOwner;
  /** Called when the stream closes before it was answered. */
  onUnanswered: (() => void) | undefined;
  #consumer: StreamConsumer | undefined;
  #sendWindow: number;
  #receiveWindow: number;
  #credit = 0;
  readonly #inbox = new ByteQueue();
  #unsent: readonly Buffer[] = nothing;
  #held = false;
  #deliveryDue = false;
  #endWanted = false;
  #endSent = false;
  #endReceived = false;
  #endTold = false;
  #closed = false;
  #closeTold = false;
  #resetCode: number | undefined;
  #lost: MeshError | undefined;

  constructor(id: number, owner: StreamOwner, sendWindow: number) {
    this.id = id;
    this.#owner = owner;
    this.#sendWindow = sendWindow;
    this.#receiveWindow = owner.streamWindow;
  }

  pipe(socket: Duplex, options: PipeOptions): Promise<PipeOutcome> {
    return new Promise((resolve) => new StreamPipe(this, socket, options, resolve).start());
  }

  duplex(): Duplex {
    return new StreamDuplex(this);
  }

  reset(): void {
    this.abort(errorCodes.cancel);
  }

  get side(): "client" | "server" {
    return this.#owner.side;
  }

  get closed(): boolean {
    return this.#closed;
  }

  get undelivered(): number {
    return this.#inbox.bytes;
  }

  /** Our END_STREAM went out. */
  get endSent(): boolean {
    return this.#endSent;
  }

  /** The code that the peer reset the stream with. */
  get resetCode(): number | undefined {
    return this.#resetCode;
  }

  /** Why the stream ended otherwise than well; resets that mean a clean end by contract 1.8 are none. */
  failure(): MeshError | undefined {
    if (this.#lost !== undefined) return this.#lost;
    const code = this.#resetCode;
    if (code === undefined || code === errorCodes.noError || code === errorCodes.cancel || code === errorCodes.streamClosed) return undefined;
    const reset = errorName(code);
    return new MeshError("HBONE_RESET", `the peer reset the stream: ${reset}`, { details: { reset } });
  }

  /** Called once, by the one who will read and write from now on. */
  attach(consumer: StreamConsumer): void {
    this.#consumer = consumer;
    this.#deliverSoon();
  }

  /** Sends `chunk`, which must not change afterwards when the answer is false: then part of it waits, and `onSent` follows. */
  send(chunk: Buffer): boolean {
    if (this.#closed || this.#endWanted) return true;
    const { carrier } = this.#owner;
    let sent = 0;
    if (this.#unsent.length === 0 && this.#sendWindow > 0 && !carrier.crowded) {
      sent = carrier.send(this.id, chunk, 0, this.#sendWindow);
      this.#sendWindow -= sent;
      if (sent === chunk.length) return true;
    }
    this.#unsent = [...this.#unsent, sent === 0 ? chunk : chunk.subarray(sent)];
    if (this.#sendWindow > 0) carrier.awaitTurn(this);
    return false;
  }

  /** END_STREAM, after what waits to be sent. */
  end(): void {
    if (this.#closed || this.#endWanted) return;
    this.#endWanted = true;
    if (this.#unsent.length === 0) this.#sendEnd();
  }

  /** Passenger: another turn for what waits. */
  sendWaiting(most: number): boolean {
    let left = most;
    while (this.#unsent.length > 0 && left > 0 && this.#sendWindow > 0) {
      const [chunk, ...rest] = this.#unsent;
      if (chunk === undefined) break;
      const sent = this.#owner.carrier.send(this.id, chunk, 0, Math.min(left, this.#sendWindow));
      if (sent === 0) break;
      left -= sent;
      this.#sendWindow -= sent;
      this.#unsent = sent === chunk.length ? rest : [chunk.subarray(sent), ...rest];
    }
    if (this.#unsent.length > 0) return this.#sendWindow > 0;
    if (this.#endWanted) this.#sendEnd();
    this.#consumer?.onSent();
    return false;
  }

  /** Ends the stream with RST_STREAM; what was received and not read is dropped. */
  abort(code: number): void {
    this.discard();
    if (this.#closed) return;
    this.#owner.carrier.reset(this.id, code);
    this.#close(true);
  }

  /** The answer's HEADERS carried END_STREAM: nothing more goes out, and what still comes is not wanted. */
  endedByHeaders(): void {
    this.discard();
    this.#endWanted = true;
    this.#endSent = true;
    if (this.#endReceived) this.#close(false);
    else this.abort(errorCodes.noError);
  }

  /** Stops delivery until `release`: the reader has enough. */
  hold(): void {
    this.#held = true;
  }

  release(): void {
    this.#held = false;
    this.#deliverSoon();
  }

  /** Bytes that were delivered hold no memory any more: the peer may send as many again. */
  consumed(length: number): void {
    this.#owner.carrier.consumed(length);
    if (this.#closed || this.#endReceived) return;
    this.#credit += length;
    if (this.#credit < this.#owner.streamWindow / 2) return;
    this.#receiveWindow += this.#credit;
    this.#owner.carrier.windowUpdate(this.id, this.#credit);
    this.#credit = 0;
  }

  /** Delivered bytes that nobody wanted: the connection gets them back, the stream's peer stays held up. */
  dropped(length: number): void {
    this.#owner.carrier.consumed(length);
  }

  /** Nobody will read what was received. */
  discard(): void {
    this.dropped(this.#inbox.bytes);
    this.#inbox.take();
  }

  /** The peer's DATA frame begins: NO_ERROR, or what to reset the stream with. */
  admit(length: number): number {
    if (this.#endReceived) return errorCodes.streamClosed;
    this.#receiveWindow -= length;
    return this.#receiveWindow < 0 ? errorCodes.flowControlError : errorCodes.noError;
  }

  receive(piece: Buffer): void {
    this.#inbox.push(piece, this.#consumer === undefined || this.#held);
    this.#deliverSoon();
  }

  receiveEnd(): void {
    this.#endReceived = true;
    this.#deliverSoon();
    if (this.#endSent) this.#close(false);
  }

  receiveReset(code: number): void {
    this.#resetCode = code;
    this.#close(false);
  }

  /** The connection is gone. */
  lose(error: MeshError): void {
    if (this.#closed) return;
    this.#lost = error;
    this.#close(false);
  }

  /** The peer's WINDOW_UPDATE, or its changed initial window; false when the window would grow past its maximum. */
  grow(increment: number): boolean {
    this.#sendWindow += increment;
    if (this.#sendWindow > maxWindow) return false;
    if (this.#unsent.length > 0 && this.#sendWindow > 0) this.#owner.carrier.awaitTurn(this);
    return true;
  }

  /** Passenger: hands on what arrived. */
  deliver(): void {
    this.#deliveryDue = false;
    const consumer = this.#consumer;
    if (consumer === undefined || this.#held) return;
    if (this.#inbox.bytes > 0) {
      consumer.onData(this.#inbox.take());
      // What ends the stream comes after its last byte, and the reader may have had enough with this.
      if (this.#held) return;
    }
    if (this.#endReceived && !this.#endTold) {
      this.#endTold = true;
      consumer.onEnd();
    }
    if (this.#closed && !this.#closeTold) {
      this.#closeTold = true;
      consumer.onClosed();
    }
  }

  #sendEnd(): void {
    this.#endSent = true;
    this.#owner.carrier.frame(frameTypes.data, frameFlags.endStream, this.id);
    if (this.#endReceived) this.#close(false);
  }

  #close(resetHere: boolean): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#unsent = nothing;
    this.#owner.carrier.leave(this);
    this.#owner.onStreamClosed(this, resetHere);
    this.onUnanswered?.();
    this.#deliverSoon();
  }

  #deliverSoon(): void {
    if (this.#deliveryDue || this.#consumer === undefined) return;
    this.#deliveryDue = true;
    this.#owner.carrier.deliverSoon(this);
  }
}
