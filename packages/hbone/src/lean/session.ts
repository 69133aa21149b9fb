/**
 * What both ends of a lean tunnel do with frames: SETTINGS, flow control, PING, GOAWAY, the states of streams, and the limits (RFC 9113,
 * ztunnel contract 1.7). What a header block means is the host's, which is the client or the server.
 */
import type { Duplex } from "node:stream";
import { type Clock, MeshError } from "@fairway/runtime";
import type { TunnelSettings } from "../engine.ts";
import { maxHeaderPairs, maxInvalidFrames, resetBurst, resetRate } from "../settings.ts";
import { Budget } from "./budget.ts";
import type { Carrier } from "./carrier.ts";
import { Connection, type Speaker } from "./connection.ts";
import { ConnectionFault, errorCodes, errorName } from "./error-codes.ts";
import { type FrameHandler, FrameReader } from "./frame-reader.ts";
import { frameFlags, frameTypes, type Setting } from "./frames.ts";
import { type DecodedBlock, HpackDecoder } from "./hpack/decoder.ts";
import { HpackEncoder } from "./hpack/encoder.ts";
import { controlBurst, controlRate, emptyDataBurst, emptyDataRate, headerBlockFactor, maxRememberedResets, refusalBurst, refusalRate } from "./limits.ts";
import { PeerSettings } from "./peer-settings.ts";
import { LeanStream, type StreamOwner } from "./stream.ts";

/** The client's or the server's part of a session. */
export interface SessionHost {
  readonly side: "client" | "server";
  /** The highest stream of the peer that was or may yet be processed: what a GOAWAY says. */
  readonly lastStream: number;
  /** Whether stream `id` was never opened: frames on it break the connection (RFC 9113 5.1). */
  isIdle(id: number): boolean;
  /** A header block; `stream` when it is open. Throws ConnectionFault. */
  onHeaders(id: number, stream: LeanStream | undefined, block: DecodedBlock, endStream: boolean): void;
  /** Whether DATA on the open stream `id` may come now. */
  mayReceive(id: number): boolean;
  /** The peer's first SETTINGS arrived. */
  onReady(): void;
  /** The peer's GOAWAY without an error. */
  onGoaway(lastStream: number): void;
  /** An answer to a PING. */
  onPong(payload: Buffer): void;
}

export class Session implements FrameHandler, StreamOwner, Speaker {
  readonly connection: Connection;
  readonly carrier: Carrier;
  readonly encoder: HpackEncoder = new HpackEncoder();
  readonly peer: PeerSettings = new PeerSettings();
  readonly streams: Map<number, LeanStream> = new Map();
  readonly streamWindow: number;
  readonly #host: SessionHost;
  readonly #reader: FrameReader;
  readonly #decoder: HpackDecoder;
  readonly #resets: Budget;
  readonly #refusals: Budget;
  readonly #late: Budget;
  readonly #control: Budget;
  readonly #emptyData: Budget;
  /** Streams reset here, oldest first: their late frames are no fault of the peer. */
  readonly #resetHere = new Set<number>();
  #ready = false;
  #acknowledged = false;
  #state: "open" | "draining" | "closing when idle" = "open";
  /** The stream of the DATA frame under way; undefined when its bytes are dropped. */
  #dataStream: LeanStream | undefined;
  #dataEnds = false;
  /** Bytes of the DATA frame that no stream got: padding, or all of them. */
  #dataUnclaimed = 0;

  constructor(clock: Clock, transport: Duplex, settings: TunnelSettings, host: SessionHost) {
    this.#host = host;
    this.streamWindow = settings.streamWindow;
    this.#resets = new Budget(clock, resetBurst, resetRate);
    this.#refusals = new Budget(clock, refusalBurst, refusalRate);
    this.#late = new Budget(clock, maxInvalidFrames, controlRate);
    this.#control = new Budget(clock, controlBurst, controlRate);
    this.#emptyData = new Budget(clock, emptyDataBurst, emptyDataRate);
    this.#decoder = new HpackDecoder({ maxListBytes: settings.maxHeaderBytes, maxFields: maxHeaderPairs });
    this.#reader = new FrameReader(this, {
      preface: host.side === "server",
      maxFrameSize: settings.frameSize,
      maxBlockBytes: settings.maxHeaderBytes * headerBlockFactor,
    });
    this.connection = new Connection(clock, transport, settings, this);
    this.carrier = this.connection.carrier;
  }

  get side(): "client" | "server" {
    return this.#host.side;
  }

  get lastStream(): number {
    return this.#host.lastStream;
  }

  get inUse(): boolean {
    return this.streams.size > 0 || !this.#reader.atBoundary;
  }

  /** False from the first GOAWAY on, either way. */
  get open(): boolean {
    return this.#state === "open" && !this.connection.closing;
  }

  lost(): MeshError | undefined {
    return this.connection.lost();
  }

  addStream(id: number): LeanStream {
    const stream = new LeanStream(id, this, this.peer.initialWindow);
    this.streams.set(id, stream);
    return stream;
  }

  /** Takes no more streams; once it is `final`, closes when the last one is gone. */
  drain({ final }: { final: boolean }): void {
    this.#state = final ? "closing when idle" : "draining";
    this.#closeIfIdle();
  }

  /** The peer broke a rule on one stream, which it may not do without end (CVE-2025-8671). */
  resetStream(id: number, code: number): void {
    if (!this.#resets.spend()) throw calmFault("too many streams had to be reset");
    const stream = this.streams.get(id);
    if (stream === undefined) this.#resetClosed(id, code);
    else stream.abort(code);
  }

  /** A stream that was not begun, because there are too many (RFC 9113 5.1.2). */
  refuseStream(id: number): void {
    if (!this.#refusals.spend()) throw calmFault("too many streams had to be refused");
    this.#resetClosed(id, errorCodes.refusedStream);
  }

  /** Whether late frames on `id` are no fault of the peer. */
  wasResetHere(id: number): boolean {
    return this.#resetHere.has(id);
  }

  read(chunk: Buffer): void {
    this.#reader.feed(chunk);
    this.carrier.deliverSmall();
    if (this.carrier.outbox.flooded) throw calmFault("the answers are not read");
  }

  onClosing(lost: MeshError): void {
    this.#reader.stop();
    for (const stream of [...this.streams.values()]) stream.lose(lost);
  }

  onStreamClosed(stream: LeanStream, resetHere: boolean): void {
    this.streams.delete(stream.id);
    if (resetHere) this.#remember(stream.id);
    this.#closeIfIdle();
  }

  onDataStart(id: number, length: number, endStream: boolean): void {
    this.carrier.received(length);
    this.#dataUnclaimed = length;
    this.#dataEnds = endStream;
    this.#dataStream = undefined;
    if (length === 0 && !endStream && !this.#emptyData.spend()) throw calmFault("too many empty DATA frames");
    const stream = this.streams.get(id);
    if (stream === undefined) {
      this.#onLateFrame(id);
      if (!this.#resetHere.has(id)) this.resetStream(id, errorCodes.streamClosed);
      return;
    }
    const code = this.#host.mayReceive(id) ? stream.admit(length) : errorCodes.protocolError;
    if (code === errorCodes.noError) this.#dataStream = stream;
    else this.resetStream(id, code);
  }

  onData(piece: Buffer): void {
    const stream = this.#dataStream;
    if (stream === undefined || stream.closed) return;
    this.#dataUnclaimed -= piece.length;
    stream.receive(piece);
  }

  onDataEnd(): void {
    const stream = this.#dataStream;
    this.#dataStream = undefined;
    if (stream === undefined || stream.closed) {
      this.carrier.consumed(this.#dataUnclaimed);
      return;
    }
    if (this.#dataUnclaimed > 0) stream.consumed(this.#dataUnclaimed);
    if (this.#dataEnds) stream.receiveEnd();
  }

  onHeaders(id: number, encoded: Buffer, endStream: boolean): void {
    // Decoded whatever becomes of it, or the tables of both ends would differ (RFC 9113 4.3).
    const block = this.#decoder.decode(encoded);
    this.#host.onHeaders(id, this.streams.get(id), block, endStream);
  }

  onReset(id: number, code: number): void {
    const stream = this.streams.get(id);
    if (stream === undefined) {
      this.#onLateFrame(id);
      return;
    }
    // Rapid reset (CVE-2023-44487).
    if (this.side === "server" && !this.#resets.spend()) throw calmFault("too many streams were opened and reset");
    stream.receiveReset(code);
  }

  onSettings(settings: readonly Setting[]): void {
    this.#spendControl();
    const { initialWindow, headerTableSize } = this.peer;
    this.peer.apply(settings, this.side);
    if (this.peer.headerTableSize < headerTableSize) this.encoder.tableReduced();
    this.carrier.peerFrameSize = this.peer.frameSize;
    // RFC 9113 6.9.2: open streams get the difference.
    const growth = this.peer.initialWindow - initialWindow;
    for (const stream of growth === 0 ? [] : this.streams.values()) {
      if (!stream.grow(growth)) throw new ConnectionFault(errorCodes.flowControlError, "SETTINGS made a window grow past 2^31-1");
    }
    this.carrier.frame(frameTypes.settings, frameFlags.ack, 0);
    if (this.#ready) return;
    this.#ready = true;
    if (!this.#acknowledged) this.connection.onPeerSettings();
    this.#host.onReady();
  }

  onSettingsAck(): void {
    this.#spendControl();
    if (this.#acknowledged) return;
    this.#acknowledged = true;
    this.connection.onAcknowledged();
    this.#decoder.setTableLimit(0);
  }

  onPing(payload: Buffer, ack: boolean): void {
    this.#spendControl();
    if (!ack) {
      this.carrier.frame(frameTypes.ping, frameFlags.ack, 0, payload);
      return;
    }
    this.connection.onPong(payload);
    this.#host.onPong(payload);
  }

  onGoaway(lastStream: number, code: number): void {
    this.#spendControl();
    if (code === errorCodes.noError) this.#host.onGoaway(lastStream);
    else this.connection.fail(new MeshError("HBONE_TUNNEL_LOST", `the peer ended the tunnel: ${errorName(code)}`, { details: { reset: errorName(code) } }));
  }

  onWindowUpdate(id: number, increment: number): void {
    if (id === 0) {
      if (increment === 0) throw new ConnectionFault(errorCodes.protocolError, "a window update of nothing");
      this.carrier.grow(increment);
      return;
    }
    const stream = this.streams.get(id);
    if (stream === undefined) this.#onLateFrame(id);
    else if (increment === 0) this.resetStream(id, errorCodes.protocolError);
    else if (!stream.grow(increment)) this.resetStream(id, errorCodes.flowControlError);
  }

  onIgnored(): void {
    this.#spendControl();
  }

  onStreamFault(id: number, code: number): void {
    if (this.#host.isIdle(id)) throw new ConnectionFault(code, "a broken frame on a stream that was never opened");
    if (this.streams.has(id)) this.resetStream(id, code);
  }

  /** A frame on a stream that is not open. Closed ones may get some that crossed our END_STREAM or RST_STREAM. */
  #onLateFrame(id: number): void {
    if (this.#host.isIdle(id)) throw new ConnectionFault(errorCodes.protocolError, "a frame on a stream that was never opened");
    if (!this.#late.spend()) throw calmFault("too many frames on closed streams");
  }

  #resetClosed(id: number, code: number): void {
    this.carrier.reset(id, code);
    this.#remember(id);
  }

  #remember(id: number): void {
    if (this.#resetHere.size >= maxRememberedResets) {
      const [oldest] = this.#resetHere;
      if (oldest !== undefined) this.#resetHere.delete(oldest);
    }
    this.#resetHere.add(id);
  }

  #spendControl(): void {
    if (!this.#control.spend()) throw calmFault("too many control frames");
  }

  #closeIfIdle(): void {
    if (this.#state === "closing when idle" && this.streams.size === 0) this.connection.finish();
  }
}

function calmFault(what: string): ConnectionFault {
  return new ConnectionFault(errorCodes.enhanceYourCalm, what);
}
