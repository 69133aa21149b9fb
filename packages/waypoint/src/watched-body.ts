/** A body under observation: whoever must know when it ends - a breaker, a balancer, a timeout - learns it, and nothing is buffered. */
import type { HeaderFields } from "@fairway/model";
import type { Body, BodySink } from "./body.ts";

export interface BodyObserver {
  /** Called exactly once: the end, with trailers or the error that broke the body off; `isCancelled`: the reader's end did, not the source's. */
  readonly onOver: (error: Error | undefined, trailers: HeaderFields | undefined, isCancelled: boolean) => void;
  /** Per chunk; keep it cheap. */
  readonly onBytes?: (bytes: number) => void;
  /** Aborting breaks the body off at both ends. */
  readonly signal?: AbortSignal;
}

/** The same body. `onOver` is called even when the body never flows, as long as it is cancelled then. */
export function watchBody(body: Body, observer: BodyObserver): Body {
  return new WatchedBody(body, observer);
}

/** Body and sink in one, because every answer passes through some of them. */
class WatchedBody implements Body, BodySink {
  readonly length: number | undefined;
  readonly #body: Body;
  readonly #observer: BodyObserver;
  #sink: BodySink | undefined;
  #over = false;

  constructor(body: Body, observer: BodyObserver) {
    this.length = body.length;
    this.#body = body;
    this.#observer = observer;
    const { signal } = observer;
    if (signal === undefined) return;
    signal.addEventListener("abort", this, { once: true });
    if (signal.aborted) this.handleEvent();
  }

  get onReady(): BodySink["onReady"] {
    return this.#sink?.onReady;
  }

  set onReady(ready: BodySink["onReady"]) {
    if (this.#sink !== undefined) this.#sink.onReady = ready;
  }

  flowInto(sink: BodySink): void {
    if (this.#over) {
      sink.fail(this.#reason() ?? new Error("the body is gone"));
      return;
    }
    this.#sink = sink;
    this.#body.flowInto(this);
  }

  cancel(reason: Error): void {
    if (this.#finish(reason, undefined, true)) this.#body.cancel(reason);
  }

  write(bytes: Uint8Array): boolean {
    if (this.#over || this.#sink === undefined) return true;
    this.#observer.onBytes?.(bytes.length);
    return this.#sink.write(bytes);
  }

  end(trailers: HeaderFields | undefined): void {
    if (this.#finish(undefined, trailers, false)) this.#sink?.end(trailers);
  }

  fail(error: Error): void {
    if (this.#finish(error, undefined, false)) this.#sink?.fail(error);
  }

  /** Of the signal. */
  handleEvent(): void {
    const reason = this.#reason() ?? new Error("aborted");
    if (!this.#finish(reason, undefined, true)) return;
    this.#body.cancel(reason);
    this.#sink?.fail(reason);
  }

  #reason(): Error | undefined {
    const reason: unknown = this.#observer.signal?.reason;
    return reason instanceof Error ? reason : undefined;
  }

  #finish(error: Error | undefined, trailers: HeaderFields | undefined, isCancelled: boolean): boolean {
    if (this.#over) return false;
    this.#over = true;
    this.#observer.signal?.removeEventListener("abort", this);
    this.#observer.onOver(error, trailers, isCancelled);
    return true;
  }
}

/** Takes a body in and drops it, so that its connection can be used again. A body longer than `limit` is cancelled instead. */
export function discard(body: Body, limit: number, reason: Error): void {
  if (body.length === 0) return;
  if (body.length !== undefined && body.length > limit) {
    body.cancel(reason);
    return;
  }
  let taken = 0;
  body.flowInto({
    write(bytes) {
      taken += bytes.length;
      if (taken > limit) body.cancel(reason);
      return true;
    },
    end: () => undefined,
    fail: () => undefined,
    onReady: undefined,
  });
}
