/**
 * A request body that several attempts may send: what went by is kept, up to a bound, and sent again from the start. Beyond the bound
 * nothing is kept any more and the body can be sent no second time. The source is paused whenever the attempt under way is.
 */
import type { HeaderFields } from "@fairway/model";
import type { Body, BodySink } from "./body.ts";

/** Bytes kept of one request. */
export const defaultReplayBytes: number = 64 * 1024;

type End = { readonly trailers: HeaderFields | undefined } | { readonly error: Error };

export class ReplayBody {
  readonly #source: Body;
  readonly #limit: number;
  #kept: Uint8Array[] = [];
  #keptBytes = 0;
  #replayable: boolean;
  #started = false;
  #end: End | undefined;
  #reader: Reader | undefined;
  #cancelled = false;
  readonly #sink: BodySink;

  constructor(source: Body, limit: number = defaultReplayBytes) {
    this.#source = source;
    this.#limit = limit;
    this.#replayable = source.length === undefined || source.length <= limit;
    this.#sink = {
      write: (bytes) => this.#take(bytes),
      end: (trailers) => this.#over({ trailers }),
      fail: (error) => this.#over({ error }),
      onReady: undefined,
    };
  }

  /** Whether another attempt could send the whole body. */
  get replayable(): boolean {
    return this.#replayable && !this.#cancelled && !(this.#end !== undefined && "error" in this.#end);
  }

  /** The body for one more attempt; the attempt before hears nothing any more. */
  attempt(): Body {
    const reader = new Reader(this);
    this.#reader = reader;
    return reader;
  }

  /** No attempt will follow: what was kept is let go as soon as it is sent. */
  settle(): void {
    this.#replayable = false;
    if (this.#reader === undefined || this.#reader.at >= this.#kept.length) this.#forget();
  }

  /** Nobody wants the rest. */
  cancel(reason: Error): void {
    if (this.#cancelled) return;
    this.#cancelled = true;
    this.#forget();
    if (this.#end === undefined) this.#source.cancel(reason);
  }

  get length(): number | undefined {
    return this.#source.length;
  }

  isCurrent(reader: Reader): boolean {
    return this.#reader === reader;
  }

  /** Sends what `reader` has not had yet; called when its sink takes more. */
  pump(reader: Reader): void {
    while (reader.open && reader.at < this.#kept.length) {
      const chunk = this.#kept[reader.at++];
      if (chunk !== undefined && reader.sink?.write(chunk) === false) return;
    }
    if (!reader.open) return;
    if (!this.#replayable) this.#forget();
    if (this.#end !== undefined) {
      reader.close(this.#end);
      return;
    }
    if (!this.#started) {
      this.#started = true;
      this.#source.flowInto(this.#sink);
    } else {
      this.#sink.onReady?.();
    }
  }

  #take(bytes: Uint8Array): boolean {
    const reader = this.#reader;
    const isCaughtUp = reader?.open === true && reader.at === this.#kept.length;
    const fits = this.#keptBytes + bytes.length <= this.#limit;
    if (this.#replayable && !fits) this.#replayable = false;
    if (this.#replayable || !isCaughtUp) {
      // What no reader has had yet is kept whatever its size: the source is paused by the answer below.
      this.#kept.push(bytes);
      this.#keptBytes += bytes.length;
      if (!isCaughtUp || reader === undefined) return false;
      reader.at = this.#kept.length;
      return reader.sink?.write(bytes) ?? false;
    }
    if (reader !== undefined) {
      this.#forget();
      return reader.sink?.write(bytes) ?? false;
    }
    return false;
  }

  #over(end: End): void {
    this.#end = end;
    const reader = this.#reader;
    if (reader?.open === true && reader.at >= this.#kept.length) reader.close(end);
  }

  #forget(): void {
    this.#kept = [];
    this.#keptBytes = 0;
    if (this.#reader !== undefined) this.#reader.at = 0;
  }
}

/** The body as one attempt sends it. */
class Reader implements Body {
  readonly #owner: ReplayBody;
  sink: BodySink | undefined;
  at = 0;
  #closed = false;

  constructor(owner: ReplayBody) {
    this.#owner = owner;
  }

  get length(): number | undefined {
    return this.#owner.length;
  }

  get open(): boolean {
    return this.sink !== undefined && !this.#closed && this.#owner.isCurrent(this);
  }

  flowInto(sink: BodySink): void {
    this.sink = sink;
    sink.onReady = () => {
      if (this.open) this.#owner.pump(this);
    };
    if (this.open) this.#owner.pump(this);
  }

  /** This attempt wants no more. Another may: the source is only paused, and whoever owns the whole cancels it. */
  cancel(reason: Error): void {
    if (this.#closed) return;
    const wasCurrent = this.#owner.isCurrent(this);
    this.#closed = true;
    if (wasCurrent && !this.#owner.replayable) this.#owner.cancel(reason);
  }

  close(end: End): void {
    if (this.#closed) return;
    this.#closed = true;
    if ("error" in end) this.sink?.fail(end.error);
    else this.sink?.end(end.trailers);
  }
}
