/** A copy of a body on its way: it never slows the original down, so what it holds is bounded and a copy that falls behind breaks off. */
import type { HeaderFields } from "@fairway/model";
import type { Body, BodySink } from "./body.ts";
import { waypointError } from "./failure.ts";

/** Bytes a copy may be behind the original. */
const maxBehindBytes = 1024 * 1024;

type Event = { readonly bytes: Uint8Array } | { readonly trailers: HeaderFields | undefined } | { readonly error: Error };

export class MirroredBody implements Body {
  readonly length: number | undefined;
  #queue: Event[] = [];
  #behind = 0;
  #sink: BodySink | undefined;
  #paused = false;
  #over = false;

  constructor(length: number | undefined) {
    this.length = length;
  }

  flowInto(sink: BodySink): void {
    this.#sink = sink;
    sink.onReady = () => {
      this.#paused = false;
      this.#pump();
    };
    if (this.length === 0) this.push({ trailers: undefined });
    else this.#pump();
  }

  cancel(_reason: Error): void {
    this.#over = true;
    this.#queue = [];
  }

  push(event: Event): void {
    if (this.#over) return;
    if ("bytes" in event) this.#behind += event.bytes.length;
    if (this.#behind > maxBehindBytes) {
      this.#queue = [];
      this.#behind = 0;
      this.#queue.push({ error: waypointError("WAYPOINT_OVERFLOW", "the copy of the request fell behind") });
      this.#paused = false;
    } else {
      this.#queue.push(event);
    }
    this.#pump();
  }

  #pump(): void {
    while (this.#sink !== undefined && !this.#paused && !this.#over) {
      const event = this.#queue.shift();
      if (event === undefined) return;
      if ("bytes" in event) {
        this.#behind -= event.bytes.length;
        this.#paused = !this.#sink.write(event.bytes);
        continue;
      }
      this.#over = true;
      if ("error" in event) this.#sink.fail(event.error);
      else this.#sink.end(event.trailers);
    }
  }
}

/** The original; whatever passes goes into `copy` as well. */
export function mirrored(body: Body, copy: MirroredBody): Body {
  return {
    length: body.length,
    flowInto(sink) {
      body.flowInto({
        write(bytes) {
          copy.push({ bytes });
          return sink.write(bytes);
        },
        end(trailers) {
          copy.push({ trailers });
          sink.end(trailers);
        },
        fail(error) {
          copy.push({ error });
          sink.fail(error);
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
      copy.push({ error: reason });
      body.cancel(reason);
    },
  };
}
