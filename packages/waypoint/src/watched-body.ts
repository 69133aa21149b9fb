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
export function watchBody(body: Body, { onOver, onBytes, signal }: BodyObserver): Body {
  let over = false;
  let outer: BodySink | undefined;
  const finish = (error: Error | undefined, trailers?: HeaderFields, isCancelled = false): boolean => {
    if (over) return false;
    over = true;
    signal?.removeEventListener("abort", onAbort);
    onOver(error, trailers, isCancelled);
    return true;
  };
  const onAbort = (): void => {
    const reason = signal?.reason instanceof Error ? signal.reason : new Error("aborted");
    if (!finish(reason, undefined, true)) return;
    body.cancel(reason);
    outer?.fail(reason);
  };
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted) onAbort();
  return {
    length: body.length,
    flowInto(sink) {
      if (over) {
        sink.fail(signal?.reason instanceof Error ? signal.reason : new Error("the body is gone"));
        return;
      }
      outer = sink;
      body.flowInto({
        write(bytes) {
          if (over) return true;
          onBytes?.(bytes.length);
          return sink.write(bytes);
        },
        end(trailers) {
          if (finish(undefined, trailers)) sink.end(trailers);
        },
        fail(error) {
          if (finish(error)) sink.fail(error);
        },
        get onReady() {
          return sink.onReady;
        },
        set onReady(ready) {
          sink.onReady = ready;
        },
      });
    },
    cancel(reason) {
      if (finish(reason, undefined, true)) body.cancel(reason);
    },
  };
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
