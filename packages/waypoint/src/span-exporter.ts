/** Sends spans to a collector by OTLP over HTTP, as JSON, in batches. What a collector does not take in time is dropped and counted. */
import { type Clock, type Logger, messageOf, type TaskGroup } from "@fairway/runtime";
import type { TracingConfig } from "./config.ts";
import type { FinishedSpan } from "./tracer.ts";

/** Posts a document; throws when it was not taken. */
export type Post = (url: string, body: string, options: { headers: Readonly<Record<string, string>>; signal: AbortSignal }) => Promise<void>;

export interface SpanExporterOptions {
  readonly config: TracingConfig;
  /** Attributes of this process. */
  readonly resource: Readonly<Record<string, string>>;
  readonly post: Post;
  readonly clock: Clock;
  readonly log: Logger;
  readonly tasks: TaskGroup;
}

const maxQueued = 2_048;
const maxBatch = 512;
const batchAfterMs = 1_000;
const postTimeoutMs = 10_000;
const statusError = 2;
const kindServer = 2;
const nanosecondsPerMillisecond = 1_000_000n;

export class SpanExporter {
  readonly #options: SpanExporterOptions;
  #queue: FinishedSpan[] = [];
  #dropped = 0;
  #exported = 0;
  #timer: Disposable | undefined;
  #sending = false;

  constructor(options: SpanExporterOptions) {
    this.#options = options;
  }

  get dropped(): number {
    return this.#dropped;
  }

  get exported(): number {
    return this.#exported;
  }

  /** Never waits, never throws. */
  readonly take = (span: FinishedSpan): void => {
    if (this.#queue.length >= maxQueued) {
      this.#dropped++;
      return;
    }
    this.#queue.push(span);
    if (this.#queue.length >= maxBatch) this.#start();
    else this.#timer ??= this.#options.clock.schedule(batchAfterMs, () => this.#start());
  };

  /** Sends what waits: for the end. */
  async flush(): Promise<void> {
    await this.#send();
  }

  #start(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
    if (!this.#sending) this.#options.tasks.run("exporting spans", () => this.#send());
  }

  async #send(): Promise<void> {
    const { config, post, clock, log } = this.#options;
    if (this.#sending || config.endpoint === undefined) return;
    this.#sending = true;
    try {
      while (this.#queue.length > 0) {
        const batch = this.#queue.splice(0, maxBatch);
        const controller = new AbortController();
        using _timer = clock.schedule(postTimeoutMs, () => controller.abort(new Error("the collector did not answer in time")));
        try {
          const headers = { "content-type": "application/json", ...config.headers };
          await post(config.endpoint, JSON.stringify(this.#document(batch)), { headers, signal: controller.signal });
          this.#exported += batch.length;
        } catch (thrown) {
          this.#dropped += batch.length;
          log.warn("spans could not be exported", { spans: batch.length, error: messageOf(thrown) });
        }
      }
    } finally {
      this.#sending = false;
    }
  }

  #document(batch: readonly FinishedSpan[]): object {
    const { resource, config } = this.#options;
    const attributes = Object.entries({ "service.name": config.serviceName, ...resource }).map(([key, value]) => attribute(key, value));
    return { resourceSpans: [{ resource: { attributes }, scopeSpans: [{ scope: { name: "fairway.waypoint" }, spans: batch.map(spanDocument) }] }] };
  }
}

/** By this process itself, not through the mesh. */
export const postDocument: Post = async (url, body, { headers, signal }) => {
  const response = await fetch(url, { method: "POST", body, headers, signal, redirect: "error" });
  await response.body?.cancel();
  if (!response.ok) throw new Error(`the collector answered ${response.status}`);
};

function spanDocument(span: FinishedSpan): object {
  return {
    traceId: span.traceId,
    spanId: span.spanId,
    ...(span.parentSpanId === undefined ? {} : { parentSpanId: span.parentSpanId }),
    ...(span.traceState === undefined ? {} : { traceState: span.traceState }),
    name: span.name,
    kind: kindServer,
    startTimeUnixNano: nanoseconds(span.startTime),
    endTimeUnixNano: nanoseconds(span.endTime),
    attributes: span.attributes.map(([key, value]) => attribute(key, value)),
    status: span.failed ? { code: statusError } : {},
  };
}

function attribute(key: string, value: string | number): object {
  return { key, value: typeof value === "number" ? { intValue: String(value) } : { stringValue: value } };
}

function nanoseconds(ms: number): string {
  return String(BigInt(Math.round(ms)) * nanosecondsPerMillisecond);
}
