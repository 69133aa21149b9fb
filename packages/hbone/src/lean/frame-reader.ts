/**
 * From chunks of bytes to frames: lengths, stream numbers, padding and the order that RFC 9113 asks for are checked here, what frames mean
 * is not. DATA is passed on as it comes and never gathered; of everything else no more is kept than a limit allows.
 */
import { ConnectionFault, errorCodes } from "./error-codes.ts";
import {
  clientPreface,
  frameFlags,
  frameHeaderLength,
  frameTypes,
  isWholeSettings,
  parseSettings,
  pingLength,
  readUint31,
  readUint32,
  type Setting,
  settingsLength,
} from "./frames.ts";
import { maxContinuations, maxSettingsEntries } from "./limits.ts";

/** What comes out of a reader. A throw from here ends the reading and goes through to who fed the reader. */
export interface FrameHandler {
  /** `length` is what flow control counts, padding included. */
  onDataStart(stream: number, length: number, endStream: boolean): void;
  /** A part of the current DATA frame; a view of the chunk that was fed. */
  onData(piece: Buffer): void;
  onDataEnd(): void;
  /** A whole header block; HEADERS and CONTINUATION together. */
  onHeaders(stream: number, block: Buffer, endStream: boolean): void;
  onReset(stream: number, code: number): void;
  onSettings(settings: readonly Setting[]): void;
  onSettingsAck(): void;
  onPing(payload: Buffer, ack: boolean): void;
  onGoaway(lastStream: number, code: number): void;
  onWindowUpdate(stream: number, increment: number): void;
  /** A frame without meaning for a tunnel: PRIORITY and types nobody knows. */
  onIgnored(): void;
  /** A frame that breaks one stream and not the connection. */
  onStreamFault(stream: number, code: number): void;
}

export interface FrameReaderOptions {
  /** A server expects the client's preface first. */
  readonly preface: boolean;
  readonly maxFrameSize: number;
  /** Encoded bytes of a header block. */
  readonly maxBlockBytes: number;
}

/** Of a GOAWAY only the fixed part is kept; its debug data are skipped. */
const goawayLength = 8;
const priorityLength = 5;
const noBytes: Buffer = Buffer.alloc(0);

export class FrameReader {
  readonly #handler: FrameHandler;
  readonly #options: FrameReaderOptions;
  #prefaceLeft: number;
  #first = true;
  #stopped = false;
  /** Bytes of a frame header that a chunk's end cut off. */
  readonly #header = Buffer.alloc(frameHeaderLength);
  #headerFill = 0;
  #type = 0;
  #flags = 0;
  #stream = 0;
  /** Payload bytes of the current frame still to come; 0 between frames. */
  #left = 0;
  /** DATA: padding at the end of what is left; -1 while its length byte is awaited. */
  #padding = 0;
  /** Kept payload of the current frame, and how many bytes more of it to keep. */
  #kept: Buffer[] = [];
  #keepLeft = 0;
  /** The header block under way. */
  #block: Buffer[] = [];
  #blockBytes = 0;
  #blockStream = 0;
  #blockEndStream = false;
  #continuations = 0;

  constructor(handler: FrameHandler, options: FrameReaderOptions) {
    this.#handler = handler;
    this.#options = options;
    this.#prefaceLeft = options.preface ? clientPreface.length : 0;
  }

  /** True between frames, where a connection may end. */
  get atBoundary(): boolean {
    return this.#headerFill === 0 && this.#left === 0 && this.#blockStream === 0;
  }

  /** The connection is closing: what is left of the chunk under way is not read either. */
  stop(): void {
    this.#stopped = true;
  }

  /** Throws ConnectionFault for what ends the connection; the reader is of no use after that. */
  feed(chunk: Buffer): void {
    let at = this.#prefaceLeft > 0 ? this.#readPreface(chunk) : 0;
    while (at < chunk.length && !this.#stopped) at = this.#left === 0 ? this.#readHeader(chunk, at) : this.#readPayload(chunk, at);
  }

  #readPreface(chunk: Buffer): number {
    const offset = clientPreface.length - this.#prefaceLeft;
    const length = Math.min(this.#prefaceLeft, chunk.length);
    if (clientPreface.compare(chunk, 0, length, offset, offset + length) !== 0) throw protocolFault("the connection does not start as HTTP/2");
    this.#prefaceLeft -= length;
    return length;
  }

  #readHeader(chunk: Buffer, at: number): number {
    if (this.#headerFill === 0 && chunk.length - at >= frameHeaderLength) {
      this.#begin(chunk, at);
      return at + frameHeaderLength;
    }
    const length = Math.min(frameHeaderLength - this.#headerFill, chunk.length - at);
    chunk.copy(this.#header, this.#headerFill, at, at + length);
    this.#headerFill += length;
    if (this.#headerFill === frameHeaderLength) {
      this.#headerFill = 0;
      this.#begin(this.#header, 0);
    }
    return at + length;
  }

  #begin(header: Buffer, at: number): void {
    const length = ((header[at] ?? 0) << 16) | ((header[at + 1] ?? 0) << 8) | (header[at + 2] ?? 0);
    const type = header[at + 3] ?? 0;
    const flags = header[at + 4] ?? 0;
    const stream = readUint31(header, at + 5);
    this.#type = type;
    this.#flags = flags;
    this.#stream = stream;
    this.#left = length;
    if (length > this.#options.maxFrameSize) throw frameSizeFault("a frame is longer than our SETTINGS allow");
    // RFC 9113 3.4: SETTINGS come first, and no acknowledgement is one.
    if (this.#first && (type !== frameTypes.settings || (flags & frameFlags.ack) !== 0)) throw protocolFault("the first frame is not SETTINGS");
    this.#first = false;
    // RFC 9113 6.10: nothing may come between the frames of a header block.
    if ((this.#blockStream !== 0) !== (type === frameTypes.continuation) || (this.#blockStream !== 0 && this.#blockStream !== stream)) {
      throw protocolFault("a header block was interrupted, or continued without being begun");
    }
    if (type === frameTypes.data) {
      this.#beginData(length);
      return;
    }
    this.#keepLeft = this.#lengthToKeep(length);
    if (length === 0) this.#finish();
  }

  #beginData(length: number): void {
    this.#requireStream();
    const padded = (this.#flags & frameFlags.padded) !== 0;
    if (padded && length === 0) throw frameSizeFault("a padded frame without a padding length");
    this.#padding = padded ? -1 : 0;
    this.#handler.onDataStart(this.#stream, length, (this.#flags & frameFlags.endStream) !== 0);
    if (length === 0) this.#handler.onDataEnd();
  }

  /** How much of the payload matters; throws for lengths and streams that the type forbids. */
  #lengthToKeep(length: number): number {
    switch (this.#type) {
      case frameTypes.headers:
        this.#requireStream();
        if (length > this.#options.maxBlockBytes) throw calmFault("a header block is too long");
        return length;
      case frameTypes.continuation:
        this.#continuations += 1;
        if (this.#continuations > maxContinuations || this.#blockBytes + length > this.#options.maxBlockBytes) throw calmFault("a header block is too long");
        return length;
      case frameTypes.priority:
        this.#requireStream();
        if (length !== priorityLength) this.#handler.onStreamFault(this.#stream, errorCodes.frameSizeError);
        return 0;
      case frameTypes.rstStream:
        this.#requireStream();
        return exact(length, 4);
      case frameTypes.windowUpdate:
        return exact(length, 4);
      case frameTypes.settings:
        this.#requireConnection();
        if (!isWholeSettings(length) || ((this.#flags & frameFlags.ack) !== 0 && length !== 0)) throw frameSizeFault("SETTINGS of a wrong length");
        if (length > settingsLength(maxSettingsEntries)) throw calmFault("SETTINGS with too many entries");
        return length;
      case frameTypes.ping:
        this.#requireConnection();
        return exact(length, pingLength);
      case frameTypes.goaway:
        this.#requireConnection();
        if (length < goawayLength) throw frameSizeFault("a GOAWAY is too short");
        return goawayLength;
      case frameTypes.pushPromise:
        throw protocolFault("a PUSH_PROMISE, which our SETTINGS forbid");
      default:
        return 0;
    }
  }

  #readPayload(chunk: Buffer, at: number): number {
    if (this.#type === frameTypes.data) return this.#readData(chunk, at);
    const length = Math.min(this.#left, chunk.length - at);
    const keep = Math.min(this.#keepLeft, length);
    // A copy, where the frame goes on in another chunk: a kept view would hold the whole chunk.
    if (keep > 0) this.#kept.push(keep === this.#keepLeft ? chunk.subarray(at, at + keep) : Buffer.from(chunk.subarray(at, at + keep)));
    this.#keepLeft -= keep;
    this.#left -= length;
    if (this.#left === 0) this.#finish();
    return at + length;
  }

  #readData(chunk: Buffer, start: number): number {
    let at = start;
    if (this.#padding < 0) {
      this.#padding = chunk[at] ?? 0;
      at += 1;
      this.#left -= 1;
      // RFC 9113 6.1.
      if (this.#padding > this.#left) throw protocolFault("DATA with more padding than payload");
    }
    const length = Math.min(this.#left - this.#padding, chunk.length - at);
    if (length > 0) {
      this.#left -= length;
      this.#handler.onData(chunk.subarray(at, at + length));
      at += length;
    }
    if (this.#left === this.#padding && this.#left > 0) {
      const padding = Math.min(this.#padding, chunk.length - at);
      this.#padding -= padding;
      this.#left -= padding;
      at += padding;
    }
    if (this.#left === 0) this.#handler.onDataEnd();
    return at;
  }

  #finish(): void {
    const [only = noBytes] = this.#kept;
    const payload = this.#kept.length > 1 ? Buffer.concat(this.#kept) : only;
    this.#kept = [];
    const ack = (this.#flags & frameFlags.ack) !== 0;
    switch (this.#type) {
      case frameTypes.headers:
        this.#beginBlock(payload);
        return;
      case frameTypes.continuation:
        this.#addToBlock(payload);
        return;
      case frameTypes.rstStream:
        this.#handler.onReset(this.#stream, readUint32(payload, 0));
        return;
      case frameTypes.windowUpdate:
        this.#handler.onWindowUpdate(this.#stream, readUint31(payload, 0));
        return;
      case frameTypes.settings:
        if (ack) this.#handler.onSettingsAck();
        else this.#handler.onSettings(parseSettings(payload));
        return;
      case frameTypes.ping:
        this.#handler.onPing(payload, ack);
        return;
      case frameTypes.goaway:
        this.#handler.onGoaway(readUint31(payload, 0), readUint32(payload, 4));
        return;
      default:
        this.#handler.onIgnored();
    }
  }

  #beginBlock(payload: Buffer): void {
    let start = 0;
    let end = payload.length;
    if ((this.#flags & frameFlags.padded) !== 0) {
      end -= payload[0] ?? 0;
      start += 1;
    }
    // Priorities are read past (RFC 9113 5.3.2).
    if ((this.#flags & frameFlags.priority) !== 0) start += priorityLength;
    if (start > end) throw payload.length < start ? frameSizeFault("HEADERS are too short") : protocolFault("HEADERS with more padding than payload");
    this.#blockStream = this.#stream;
    this.#blockEndStream = (this.#flags & frameFlags.endStream) !== 0;
    this.#addToBlock(payload.subarray(start, end));
  }

  #addToBlock(part: Buffer): void {
    const ends = (this.#flags & frameFlags.endHeaders) !== 0;
    // What waits for a CONTINUATION is kept as a copy, for the same reason as above.
    if (part.length > 0) this.#block.push(ends ? part : Buffer.from(part));
    this.#blockBytes += part.length;
    if (!ends) return;
    const [only = noBytes] = this.#block;
    const block = this.#block.length > 1 ? Buffer.concat(this.#block) : only;
    const stream = this.#blockStream;
    this.#block = [];
    this.#blockBytes = this.#blockStream = this.#continuations = 0;
    this.#handler.onHeaders(stream, block, this.#blockEndStream);
  }

  #requireStream(): void {
    if (this.#stream === 0) throw protocolFault("a frame of a stream on stream 0");
  }

  #requireConnection(): void {
    if (this.#stream !== 0) throw protocolFault("a frame of the connection on a stream");
  }
}

function exact(length: number, expected: number): number {
  if (length !== expected) throw frameSizeFault("a frame of a wrong length");
  return length;
}

function protocolFault(what: string): ConnectionFault {
  return new ConnectionFault(errorCodes.protocolError, what);
}

function frameSizeFault(what: string): ConnectionFault {
  return new ConnectionFault(errorCodes.frameSizeError, what);
}

function calmFault(what: string): ConnectionFault {
  return new ConnectionFault(errorCodes.enhanceYourCalm, what);
}
