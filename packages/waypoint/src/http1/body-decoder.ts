/**
 * The body of an HTTP/1 message out of bytes that arrive in any pieces (RFC 9112 6, 7.1). Pure: takes bytes, gives pieces of them, no copies.
 * Chunked: size → [extension] → data → end of data → size … → trailers → done.
 */
import type { HeaderFields } from "@fairway/model";
import type { HttpLimits } from "../http-connection.ts";
import type { Framing } from "./framing.ts";
import { type HeadFault, parseTrailers } from "./header-block.ts";

/** Bytes of extensions of all chunks of one body; none is understood, all are dropped (CVE-2023-39326, CVE-2024-22019). */
const maxExtensionBytes = 16 * 1024;
/** Hexadecimal digits of a chunk's size. */
const maxSizeDigits = 12;
const [tab, lineFeed, carriageReturn, space, semicolon] = [0x09, 0x0a, 0x0d, 0x20, 0x3b] as const;

export interface BodyDecoder {
  /** Content found by the last call of `decode`. */
  readonly piece: Buffer | undefined;
  /** Nothing of what follows belongs to the body. */
  readonly done: boolean;
  readonly trailers: HeaderFields | undefined;
  /** Takes bytes from `at` on, up to and with one piece of content; returns where it stopped. Throws on a fault. */
  decode(bytes: Buffer, at: number): number;
  /** The connection ended here: whether the body is whole. */
  finish(): boolean;
}

export function decoderOf(framing: Framing, limits: HttpLimits, fault: HeadFault): BodyDecoder | undefined {
  switch (framing.kind) {
    case "none":
      return undefined;
    case "length":
      return framing.length === 0 ? undefined : new LengthDecoder(framing.length);
    case "chunked":
      return new ChunkedDecoder(limits, fault);
    case "until-close":
      return new RawDecoder();
  }
}

class LengthDecoder implements BodyDecoder {
  piece: Buffer | undefined;
  readonly trailers = undefined;
  #left: number;

  constructor(length: number) {
    this.#left = length;
  }

  get done(): boolean {
    return this.#left === 0;
  }

  decode(bytes: Buffer, at: number): number {
    const end = Math.min(bytes.length, at + this.#left);
    this.piece = at === 0 && end === bytes.length ? bytes : bytes.subarray(at, end);
    this.#left -= end - at;
    return end;
  }

  finish(): boolean {
    return this.done;
  }
}

/** Everything up to the end of the connection: an answer without a length, or another protocol after 101. */
export class RawDecoder implements BodyDecoder {
  piece: Buffer | undefined;
  readonly trailers = undefined;
  done = false;

  decode(bytes: Buffer, at: number): number {
    this.piece = at === 0 ? bytes : bytes.subarray(at);
    return bytes.length;
  }

  finish(): boolean {
    this.done = true;
    return true;
  }
}

type ChunkState = "size" | "padding" | "extension" | "size-end" | "data" | "data-end" | "data-end-2" | "trailers" | "done";

export class ChunkedDecoder implements BodyDecoder {
  piece: Buffer | undefined;
  trailers: HeaderFields | undefined;
  readonly #limits: HttpLimits;
  readonly #fault: HeadFault;
  #state: ChunkState = "size";
  #digits = 0;
  #size = 0;
  #extensionBytes = 0;
  #trailerText = "";

  constructor(limits: HttpLimits, fault: HeadFault) {
    this.#limits = limits;
    this.#fault = fault;
  }

  get done(): boolean {
    return this.#state === "done";
  }

  finish(): boolean {
    return this.done;
  }

  decode(bytes: Buffer, from: number): number {
    this.piece = undefined;
    let at = from;
    while (at < bytes.length) {
      const code = bytes[at] ?? 0;
      switch (this.#state) {
        case "data": {
          const end = Math.min(bytes.length, at + this.#size);
          this.piece = at === 0 && end === bytes.length ? bytes : bytes.subarray(at, end);
          this.#size -= end - at;
          if (this.#size === 0) this.#state = "data-end";
          return end;
        }
        case "trailers":
          at = this.#takeTrailers(bytes, at);
          if (this.done) return at;
          continue;
        case "done":
          return at;
        case "data-end":
          if (code !== carriageReturn) throw this.#fault(400, "a chunk is longer than its size");
          this.#state = "data-end-2";
          break;
        case "data-end-2":
          if (code !== lineFeed) throw this.#fault(400, "a chunk is not followed by CRLF");
          this.#state = "size";
          this.#digits = 0;
          break;
        default:
          this.#takeSizeLine(code);
      }
      at += 1;
    }
    return at;
  }

  /** One byte of a line `size [;extension] CRLF`. */
  #takeSizeLine(code: number): void {
    if (this.#state === "size-end") {
      if (code !== lineFeed) throw this.#fault(400, "a chunk's size is not followed by CRLF");
      this.#state = this.#size === 0 ? "trailers" : "data";
      return;
    }
    if (this.#state === "size") {
      const digit = hexDigit(code);
      if (digit >= 0) {
        this.#size = this.#digits === 0 ? digit : this.#size * 16 + digit;
        this.#digits += 1;
        if (this.#digits > maxSizeDigits) throw this.#fault(400, "a chunk's size has too many digits");
        return;
      }
      if (this.#digits === 0) throw this.#fault(400, "a chunk's size is not a number");
    }
    if (code === carriageReturn) {
      this.#state = "size-end";
      return;
    }
    this.#extensionBytes += 1;
    if (this.#extensionBytes > maxExtensionBytes) throw this.#fault(400, "too many bytes of chunk extensions");
    if (code === semicolon) this.#state = "extension";
    else if (this.#state !== "extension") {
      if (code !== space && code !== tab) throw this.#fault(400, "a chunk's size is not a number");
      this.#state = "padding";
    } else if (code < space ? code !== tab : code === 0x7f) throw this.#fault(400, "a chunk extension has a control character");
  }

  #takeTrailers(bytes: Buffer, from: number): number {
    // The rest of the message is short: text is gathered until its empty line is in it.
    const room = this.#limits.maxTrailerBytes + 4 - this.#trailerText.length;
    const before = this.#trailerText.length;
    const text = this.#trailerText + bytes.toString("latin1", from, Math.min(bytes.length, from + room));
    const end = text.startsWith("\r\n") ? 0 : text.indexOf("\r\n\r\n", Math.max(0, before - 3));
    if (end < 0) {
      const feed = text.indexOf("\n");
      if (feed === 0 || (feed > 0 && text[feed - 1] !== "\r")) throw this.#fault(400, "a line of the trailers does not end in CRLF");
      if (text.length >= this.#limits.maxTrailerBytes + 4) throw this.#fault(431, "the trailers are too long");
      this.#trailerText = text;
      return bytes.length;
    }
    this.trailers = end === 0 ? undefined : parseTrailers(text.slice(0, end + 2), this.#limits.maxHeaderCount, this.#fault);
    this.#state = "done";
    return from + (end === 0 ? 2 : end + 4) - before;
  }
}

function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const letter = code | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}
