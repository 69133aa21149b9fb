/** Bodies on streams of node:http2, in both directions. */
import { constants, type Http2Stream } from "node:http2";
import type { HeaderFields } from "@fairway/model";
import type { Body, BodySink } from "../body.ts";
import { readTrailers, writeTrailers } from "./fields.ts";

/** What a stream receives. */
export class StreamBody implements Body {
  readonly length: number | undefined;
  /** So far. */
  bytes = 0;
  readonly #stream: Http2Stream;
  readonly #failure: () => Error;
  readonly #onCancel: () => void;
  #trailers: HeaderFields | undefined;
  #over = false;
  #cancelled = false;

  /** `failure` says why a body broke off; `onCancel` ends it when nobody wants the rest. */
  constructor(stream: Http2Stream, length: number | undefined, { failure, onCancel }: { failure: () => Error; onCancel: () => void }) {
    this.#stream = stream;
    this.length = length;
    this.#failure = failure;
    this.#onCancel = onCancel;
    if (length === 0) return;
    stream.on("trailers", (_headers, _flags, raw: unknown) => {
      this.#trailers = readTrailers(Array.isArray(raw) ? (raw as string[]) : []);
    });
  }

  /** True when it was delivered, cancelled or broken. */
  get over(): boolean {
    return this.#over || this.length === 0;
  }

  get cancelled(): boolean {
    return this.#cancelled;
  }

  flowInto(sink: BodySink): void {
    if (this.length === 0) {
      sink.end(undefined);
      return;
    }
    const stream = this.#stream;
    const finish = (whole: boolean): void => {
      if (this.#over) return;
      this.#over = true;
      if (whole) sink.end(this.#trailers);
      else sink.fail(this.#failure());
    };
    const short = (): boolean => this.length !== undefined && this.bytes !== this.length;
    sink.onReady = () => {
      if (!this.#over) stream.resume();
    };
    // A stream that is reset ends too: its code tells the two apart.
    stream.once("end", () => finish(stream.rstCode === constants.NGHTTP2_NO_ERROR && !short()));
    stream.once("close", () => finish(false));
    if (stream.destroyed) {
      finish(false);
      return;
    }
    stream.on("data", (chunk: Buffer) => {
      this.bytes += chunk.length;
      if (!this.#over && !sink.write(chunk)) stream.pause();
    });
  }

  cancel(): void {
    if (this.over) return;
    this.#over = true;
    this.#cancelled = true;
    this.#onCancel();
  }
}

interface SendOptions {
  /** What the peer is told when the body breaks off. */
  readonly brokenCode: number;
  readonly onBytes?: (bytes: number) => void;
  readonly onBroken?: () => void;
}

/**
 * Sends a body on a stream that was opened with `waitForTrailers`. Without that option `close` would send END_STREAM before the reset, and
 * what broke off would look complete.
 */
export function sendBody(stream: Http2Stream, body: Body, { brokenCode, onBytes, onBroken }: SendOptions): void {
  let trailers: HeaderFields | undefined;
  let over = false;
  stream.once("wantTrailers", () => stream.sendTrailers(writeTrailers(trailers)));
  const sink: BodySink = {
    write: (bytes) => {
      if (over || stream.destroyed || stream.writableEnded) return true;
      onBytes?.(bytes.length);
      return stream.write(bytes);
    },
    end: (last) => {
      over = true;
      trailers = last;
      if (!stream.destroyed) stream.end();
    },
    fail: () => {
      over = true;
      onBroken?.();
      reset(stream, brokenCode);
    },
    onReady: undefined,
  };
  stream.on("drain", () => sink.onReady?.());
  stream.once("close", () => {
    if (over) return;
    over = true;
    body.cancel(new Error("the stream was closed"));
  });
  body.flowInto(sink);
}

/** RST_STREAM, once. */
export function reset(stream: Http2Stream, code: number): void {
  if (!stream.destroyed && !stream.closed) stream.close(code);
}
