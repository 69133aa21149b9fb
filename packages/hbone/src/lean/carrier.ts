/**
 * What the streams of a connection share to move their bytes: the outbox, the connection's windows both ways, and the turn, in which received
 * bytes are handed on and waiting streams send in turn, once per round of the event loop.
 */
import type { Duplex } from "node:stream";
import { ConnectionFault, errorCodes } from "./error-codes.ts";
import { defaultFrameSize, defaultWindow, frameFlags, frameTypes, maxWindow, uint32 } from "./frames.ts";
import { gatheredBytes, sendQuantum, sendsPerFlush } from "./limits.ts";
import { Outbox } from "./outbox.ts";

/** What the carrier asks of a stream. */
export interface Passenger {
  /** Received bytes that were not handed on. */
  readonly undelivered: number;
  /** Hands what was received to whoever reads the stream. */
  deliver(): void;
  /** Sends up to `most` waiting bytes; true when it has more that it could send. */
  sendWaiting(most: number): boolean;
}

export interface CarrierOptions {
  readonly transport: Duplex;
  readonly connectionWindow: number;
  /** Something thrown where nobody else could catch it; the connection cannot be trusted after that. */
  readonly onFault: (thrown: unknown) => void;
}

const noBytes: Buffer = Buffer.alloc(0);

export class Carrier {
  /** What the peer allows: the largest DATA frame. */
  peerFrameSize: number = defaultFrameSize;
  readonly outbox: Outbox;
  readonly #onFault: (thrown: unknown) => void;
  readonly #connectionWindow: number;
  #sendWindow: number = defaultWindow;
  #receiveWindow: number = defaultWindow;
  /** Received bytes that are taken care of and that the peer was not told about. */
  #credit = 0;
  /** Streams with received bytes or an end to hand on. */
  #arrived: Passenger[] = [];
  /** Streams with bytes to send that only the connection holds back; first come, first served. */
  readonly #waiting = new Set<Passenger>();
  #turnDue = false;
  /** Since the turn's begin. */
  #sends = 0;
  #stopped = false;

  constructor({ transport, connectionWindow, onFault }: CarrierOptions) {
    this.#connectionWindow = connectionWindow;
    this.#onFault = onFault;
    this.outbox = new Outbox(transport, this.#schedule);
  }

  frame(type: number, flags: number, stream: number, payload: Uint8Array = noBytes): void {
    if (this.#stopped) return;
    this.outbox.frame(type, flags, stream, payload);
    this.#schedule();
  }

  /** HEADERS, and CONTINUATION for what does not fit (RFC 9113 4.3). */
  headers(stream: number, block: Buffer, endStream: boolean): void {
    const end = endStream ? frameFlags.endStream : 0;
    // The least that any peer must take; nobody's headers are worth more care.
    for (let at = 0; at === 0 || at < block.length; at += defaultFrameSize) {
      const last = at + defaultFrameSize >= block.length;
      const type = at === 0 ? frameTypes.headers : frameTypes.continuation;
      this.frame(type, (at === 0 ? end : 0) | (last ? frameFlags.endHeaders : 0), stream, block.subarray(at, at + defaultFrameSize));
    }
  }

  reset(stream: number, code: number): void {
    this.frame(frameTypes.rstStream, 0, stream, uint32(code));
  }

  windowUpdate(stream: number, increment: number): void {
    this.frame(frameTypes.windowUpdate, 0, stream, uint32(increment));
  }

  /** Writes what is gathered, once more, and nothing after it. */
  stop(): void {
    if (this.#stopped) return;
    this.outbox.flush();
    this.#stopped = true;
    this.#waiting.clear();
  }

  /** Raises the connection's receive window to its setting; RFC 9113 has no SETTINGS entry for it. */
  openConnectionWindow(): void {
    const increment = this.#connectionWindow - defaultWindow;
    if (increment <= 0) return;
    this.#receiveWindow += increment;
    this.windowUpdate(0, increment);
  }

  /** Throws when the peer sent more than it may. */
  received(length: number): void {
    this.#receiveWindow -= length;
    if (this.#receiveWindow < 0) throw new ConnectionFault(errorCodes.flowControlError, "the peer sent more than the connection's window");
  }

  /** Bytes counted by `received` that hold no memory any more. */
  consumed(length: number): void {
    this.#credit += length;
    if (this.#credit < this.#connectionWindow / 4 || this.#stopped) return;
    this.#receiveWindow += this.#credit;
    this.windowUpdate(0, this.#credit);
    this.#credit = 0;
  }

  /** The peer's WINDOW_UPDATE for the connection. */
  grow(increment: number): void {
    this.#sendWindow += increment;
    if (this.#sendWindow > maxWindow) throw new ConnectionFault(errorCodes.flowControlError, "the connection's window grew past 2^31-1");
    if (this.#waiting.size > 0) this.#schedule();
  }

  /** A stream must wait its turn to send: others do, or there is no room. */
  get crowded(): boolean {
    return this.#waiting.size > 0 || this.#sendWindow <= 0 || this.outbox.crowded;
  }

  /** Sends as much of `chunk` from `offset` on as `window`, the connection and the outbox allow; returns how much that was. */
  send(stream: number, chunk: Buffer, offset: number, window: number): number {
    let at = offset;
    const end = Math.min(chunk.length, offset + Math.min(window, this.#sendWindow));
    while (at < end && !this.#stopped && !this.outbox.crowded)
      at += this.outbox.data(0, stream, chunk, at, Math.min(end - at, this.peerFrameSize, sendQuantum));
    if (at === offset) return 0;
    this.#sendWindow -= at - offset;
    this.#sends += 1;
    // In a busy round the peer starts on the first bytes while the last are being read.
    if (this.#sends % sendsPerFlush === 0) this.outbox.flush();
    this.#schedule();
    return at - offset;
  }

  /** `passenger` has bytes that its own window allows. */
  awaitTurn(passenger: Passenger): void {
    if (this.#stopped) return;
    this.#waiting.add(passenger);
    if (!this.outbox.crowded && this.#sendWindow > 0) this.#schedule();
  }

  leave(passenger: Passenger): void {
    this.#waiting.delete(passenger);
  }

  /** `passenger.deliver` will be called in this turn; the caller remembers that it asked. */
  deliverSoon(passenger: Passenger): void {
    this.#arrived.push(passenger);
    this.#schedule();
  }

  /** Hands on what is small at once, for replies that somebody waits for; bulk is left to the turn, which gathers it into fewer writes. */
  deliverSmall(): void {
    const arrived = this.#arrived;
    this.#arrived = [];
    for (const passenger of arrived) {
      if (passenger.undelivered < gatheredBytes) passenger.deliver();
      else this.#arrived.push(passenger);
    }
  }

  readonly #schedule = (): void => {
    if (this.#turnDue) return;
    this.#turnDue = true;
    // After all I/O of this round, so that its frames go out together; measured to cost a quarter less than a flush per tick.
    setImmediate(this.#turn);
  };

  readonly #turn = (): void => {
    this.#turnDue = false;
    this.#sends = 0;
    try {
      const arrived = this.#arrived;
      this.#arrived = [];
      for (const passenger of arrived) passenger.deliver();
      while (this.#waiting.size > 0 && this.#sendWindow > 0 && !this.outbox.crowded) this.#sendNext();
      if (!this.#stopped) this.outbox.flush();
    } catch (thrown) {
      this.#onFault(thrown);
    }
  };

  #sendNext(): void {
    const [passenger] = this.#waiting;
    if (passenger === undefined) return;
    this.#waiting.delete(passenger);
    if (passenger.sendWaiting(sendQuantum)) this.#waiting.add(passenger);
  }
}
