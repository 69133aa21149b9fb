/** The two sides of a stream's inner end: who reads and writes it, and what that one may ask of it. */
import type { MeshError } from "@fairway/runtime";

/** Who reads and writes a stream: a copy to a socket, or a duplex. */
export interface StreamConsumer {
  /** Received bytes; `stream.consumed` is told when they hold no memory any more. */
  onData(pieces: readonly Buffer[]): void;
  /** The peer's END_STREAM, after all bytes. */
  onEnd(): void;
  /** The stream is closed, after all bytes; `failure` says how. */
  onClosed(): void;
  /** After a `send` that was not all taken, or an `end` that had to wait: everything went out now. */
  onSent(): void;
}

/** A stream, as its consumer sees it. */
export interface ConsumedStream {
  readonly side: "client" | "server";
  readonly closed: boolean;
  /** Our END_STREAM went out. */
  readonly endSent: boolean;
  /** The code that the peer reset the stream with. */
  readonly resetCode: number | undefined;
  /** Why the stream ended otherwise than well. */
  failure(): MeshError | undefined;
  /** Called once, by the one who will read and write from now on. */
  attach(consumer: StreamConsumer): void;
  /** False when part of `chunk` must wait; `onSent` follows, and `chunk` may not change before. */
  send(chunk: Buffer): boolean;
  /** END_STREAM, after what waits to be sent. */
  end(): void;
  /** RST_STREAM with `code`. */
  abort(code: number): void;
  /** Stops delivery until `release`. */
  hold(): void;
  release(): void;
  /** Delivered bytes hold no memory any more: the peer may send as many again. */
  consumed(length: number): void;
  /** Delivered bytes that nobody wanted: the connection gets them back, the stream's peer stays held up. */
  dropped(length: number): void;
  /** Nobody will read what was received and not delivered. */
  discard(): void;
}
