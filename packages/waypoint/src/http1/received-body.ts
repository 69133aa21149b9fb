/**
 * A body on its way out of an HTTP/1 connection. Nothing is decoded before somebody takes it, so what waits is bytes of the connection.
 * States: waiting → flowing → over (ended, failed or cancelled).
 */
import type { HeaderFields } from "@fairway/model";
import type { Body, BodySink } from "../body.ts";
import { waypointError } from "../failure.ts";
import type { BodyDecoder } from "./body-decoder.ts";
import type { WireReader } from "./wire.ts";

export interface BodyOwner {
  /** The sink takes bytes now. */
  onBodyWanted(): void;
  onBodyCancelled(reason: Error): void;
}

export class ReceivedBody implements Body {
  readonly length: number | undefined;
  /** Of content, handed on so far. */
  received = 0;
  readonly #decoder: BodyDecoder;
  readonly #owner: BodyOwner;
  #sink: BodySink | undefined;
  #ready = false;
  #over = false;
  #failure: Error | undefined;

  constructor(length: number | undefined, decoder: BodyDecoder, owner: BodyOwner) {
    this.length = length;
    this.#decoder = decoder;
    this.#owner = owner;
  }

  /** Somebody takes it. */
  get flowing(): boolean {
    return this.#sink !== undefined && !this.#over;
  }

  get over(): boolean {
    return this.#over;
  }

  /** All of it was read from the connection, whether or not its reader heard of the end yet. */
  get whole(): boolean {
    return this.#decoder.done;
  }

  /** Bytes would be passed on now. */
  get wanted(): boolean {
    return this.#ready && !this.#over;
  }

  flowInto(sink: BodySink): void {
    if (this.#sink !== undefined) return;
    this.#sink = sink;
    if (this.#failure !== undefined) {
      sink.fail(this.#failure);
      return;
    }
    if (this.#over) return;
    sink.onReady = this.#onReady;
    this.#ready = true;
    this.#owner.onBodyWanted();
  }

  cancel(reason: Error): void {
    if (this.#over) return;
    this.#over = true;
    this.#owner.onBodyCancelled(reason);
  }

  /** Decodes what waits in `reader` as far as the sink takes it. Throws on a fault in the framing. */
  pump(reader: WireReader): void {
    const decoder = this.#decoder;
    while (this.#ready && !this.#over && !decoder.done && reader.at < reader.bytes.length) {
      reader.at = decoder.decode(reader.bytes, reader.at);
      const { piece } = decoder;
      if (piece === undefined || piece.length === 0) continue;
      this.received += piece.length;
      if (this.#sink?.write(piece) === false) this.#ready = false;
    }
    if (decoder.done && !this.#over && this.#sink !== undefined) this.#end(decoder.trailers);
  }

  /** Drops what waits; true when that was the rest of it. Throws on a fault in the framing. */
  skip(reader: WireReader): boolean {
    const decoder = this.#decoder;
    while (!decoder.done && reader.at < reader.bytes.length) reader.at = decoder.decode(reader.bytes, reader.at);
    return decoder.done;
  }

  /** The connection ended for good after everything decoded: whether that is the body's end. */
  finish(): boolean {
    if (!this.#decoder.finish()) return false;
    if (!this.#over && this.#sink !== undefined) this.#end(this.#decoder.trailers);
    return true;
  }

  fail(error: Error): void {
    if (this.#over) return;
    this.#over = true;
    this.#failure = error;
    this.#sink?.fail(error);
  }

  /** Dropped unread; who comes for it now comes too late. */
  abandon(): void {
    this.#over = true;
    this.#failure = waypointError("WAYPOINT_ANSWERED_EARLY", "the request was answered before anybody read its body");
  }

  #end(trailers: HeaderFields | undefined): void {
    this.#over = true;
    this.#sink?.end(trailers);
  }

  readonly #onReady = (): void => {
    if (this.#over || this.#ready) return;
    this.#ready = true;
    this.#owner.onBodyWanted();
  };
}
