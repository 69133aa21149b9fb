/** A CONNECT stream of node:http2 as a TunnelStream, and what its reset codes mean (ztunnel contract 1.8). */
import { constants, type Http2Stream } from "node:http2";
import { addAbortSignal, type Duplex } from "node:stream";
import { MeshError } from "@fairway/runtime";
import type { PipeOutcome, TunnelStream } from "./engine.ts";
import { copy, type PipeOptions } from "./pipe.ts";

const { NGHTTP2_NO_ERROR, NGHTTP2_CANCEL, NGHTTP2_STREAM_CLOSED } = constants;

const resetNames: ReadonlyMap<number, string> = new Map(
  Object.entries({
    NO_ERROR: constants.NGHTTP2_NO_ERROR,
    PROTOCOL_ERROR: constants.NGHTTP2_PROTOCOL_ERROR,
    INTERNAL_ERROR: constants.NGHTTP2_INTERNAL_ERROR,
    FLOW_CONTROL_ERROR: constants.NGHTTP2_FLOW_CONTROL_ERROR,
    SETTINGS_TIMEOUT: constants.NGHTTP2_SETTINGS_TIMEOUT,
    STREAM_CLOSED: constants.NGHTTP2_STREAM_CLOSED,
    FRAME_SIZE_ERROR: constants.NGHTTP2_FRAME_SIZE_ERROR,
    REFUSED_STREAM: constants.NGHTTP2_REFUSED_STREAM,
    CANCEL: constants.NGHTTP2_CANCEL,
    COMPRESSION_ERROR: constants.NGHTTP2_COMPRESSION_ERROR,
    CONNECT_ERROR: constants.NGHTTP2_CONNECT_ERROR,
    ENHANCE_YOUR_CALM: constants.NGHTTP2_ENHANCE_YOUR_CALM,
    INADEQUATE_SECURITY: constants.NGHTTP2_INADEQUATE_SECURITY,
    HTTP_1_1_REQUIRED: constants.NGHTTP2_HTTP_1_1_REQUIRED,
  }).map(([name, code]) => [code, name]),
);

export function resetName(code: number): string {
  return resetNames.get(code) ?? `0x${code.toString(16)}`;
}

/** What a stream asks of the tunnel it belongs to. */
export interface StreamOwner {
  /** The end of the tunnel that a stream is the server's or the client's. */
  readonly side: "client" | "server";
  /** Why the tunnel is gone; undefined while it lives. */
  lost(): MeshError | undefined;
}

export class NodeTunnelStream implements TunnelStream {
  readonly #stream: Http2Stream;
  readonly #owner: StreamOwner;

  constructor(stream: Http2Stream, owner: StreamOwner) {
    this.#stream = stream;
    this.#owner = owner;
    letGoWhenClosed(stream);
  }

  pipe(socket: Duplex, options: PipeOptions): Promise<PipeOutcome> {
    return copy(socket, this.#stream, options, {
      failure: () => streamFailure(this.#stream, this.#owner),
      release: () => this.#release(),
      abort: () => this.reset(),
      gather: true,
      readsForNobody: true,
    });
  }

  duplex(): Duplex {
    return this.#stream;
  }

  reset(): void {
    breakOff(this.#stream);
  }

  /** Both directions are over for us. A server that sent its END_STREAM says NO_ERROR, everybody else CANCEL. */
  #release(): void {
    if (this.#stream.closed) return;
    if (this.#stream.readableEnded && this.#stream.writableFinished) return;
    if (this.#owner.side !== "server" || !this.#stream.writableFinished) {
      breakOff(this.#stream);
      return;
    }
    this.#stream.close(NGHTTP2_NO_ERROR);
    this.#stream.destroy();
  }
}

/**
 * Ends a stream with RST_STREAM CANCEL and nothing before it. `close(code)` would first end the writable side, and a `destroy()` after it
 * forgets the reset: the peer got END_STREAM, which makes what was cut off look whole. Only an abort says CANCEL and no end.
 */
export function breakOff(stream: Http2Stream): void {
  const controller = new AbortController();
  addAbortSignal(controller.signal, stream);
  controller.abort();
}

/**
 * A peer may end a stream with NO_ERROR while bytes of ours still wait for its window (RFC 9113 8.1; a server does it as soon as it has
 * answered). nghttp2 is done with the stream then and never finishes those writes, and node:http2, which waits for the reader to see the
 * end and then for the writes, never closes it: the end of what there is to read is the last that is heard of it.
 */
function letGoWhenClosed(stream: Http2Stream): void {
  stream.once("end", () => {
    if (!stream.closed || stream.writableFinished) return;
    // Writes that were made are confirmed within the turn.
    setImmediate(() => {
      if (!stream.writableFinished) stream.destroy();
    });
  });
}

/** Why a stream ended otherwise than by END_STREAM both ways; undefined for the codes that are a clean end. */
function streamFailure(stream: Http2Stream, owner: StreamOwner): MeshError | undefined {
  const code = stream.rstCode;
  if (code === undefined || code === NGHTTP2_NO_ERROR) return undefined;
  // A connection that breaks gives its streams a code of their own making.
  const lost = owner.lost();
  if (lost !== undefined) return lost;
  if (code === NGHTTP2_CANCEL || code === NGHTTP2_STREAM_CLOSED) return undefined;
  const reset = resetName(code);
  return new MeshError("HBONE_RESET", `the peer reset the stream: ${reset}`, { details: { reset } });
}
