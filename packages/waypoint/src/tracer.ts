/**
 * Spans of this hop (W3C Trace Context). With somewhere to send them to, every sampled request gets a span of ours between its caller's and its
 * upstream's; with nowhere, the caller's context is passed on untouched, so that no trace has a hole in it.
 */
import { parseTraceparent } from "@fairway/hbone";
import type { Clock } from "@fairway/runtime";
import type { TracingConfig } from "./config.ts";
import type { Exchange } from "./exchange.ts";

export interface Span {
  /** What the upstream is told. */
  readonly traceparent: string;
  end(exchange: Exchange, outcome: { readonly status: number; readonly failed: boolean }): void;
}

export interface Tracer {
  /** Undefined: nothing is put between caller and upstream. */
  start(exchange: Exchange): Span | undefined;
}

/** A span that ended, ready to be sent. */
export interface FinishedSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string | undefined;
  readonly traceState: string | undefined;
  readonly name: string;
  /** Milliseconds since the epoch. */
  readonly startTime: number;
  readonly endTime: number;
  readonly attributes: readonly (readonly [name: string, value: string | number])[];
  readonly failed: boolean;
}

export interface TracerOptions {
  readonly config: TracingConfig;
  readonly clock: Clock;
  /** Returns 0..1. */
  readonly random: () => number;
  readonly randomBytes: (size: number) => Uint8Array;
  readonly onSpan: (span: FinishedSpan) => void;
}

const serverError = 500;

export function createTracer({ config, clock, random, randomBytes, onSpan }: TracerOptions): Tracer {
  if (config.endpoint === undefined) return { start: () => undefined };
  const hex = (size: number): string => Buffer.from(randomBytes(size)).toString("hex");
  return {
    start(exchange) {
      const { headers } = exchange.request.head;
      const parent = parseTraceparent(headers.get("traceparent"));
      const sampled = parent !== undefined && config.parentBased ? parent.sampled : random() < config.ratio;
      const traceId = parent?.traceId ?? hex(16);
      const spanId = hex(8);
      const startTime = clock.now();
      return {
        traceparent: `00-${traceId}-${spanId}-${sampled ? "01" : "00"}`,
        end(finished, { status, failed }) {
          if (!sampled) return;
          onSpan({
            traceId,
            spanId,
            parentSpanId: parent?.spanId,
            traceState: parent === undefined ? undefined : headers.get("tracestate"),
            name: finished.route?.name ?? finished.downstream.target.hostname,
            startTime,
            endTime: clock.now(),
            attributes: attributesOf(finished, status),
            failed: failed || status >= serverError,
          });
        },
      };
    },
  };
}

function attributesOf({ request, downstream, record, remote }: Exchange, status: number): FinishedSpan["attributes"] {
  const { head } = request;
  const all: readonly (readonly [string, string | number | undefined])[] = [
    ["http.request.method", head.method],
    ["url.scheme", head.scheme],
    ["url.path", head.path.split("?", 1)[0]],
    ["server.address", head.authority],
    ["http.response.status_code", status],
    ["client.address", remote.ip],
    ["user_agent.original", head.headers.get("user-agent")],
    ["response_flags", record.flags.size === 0 ? "-" : [...record.flags].join(",")],
    ["upstream_cluster", record.cluster],
    ["upstream_address", record.upstream === undefined ? undefined : `${record.upstream.ip}:${record.upstream.port}`],
    ["source.principal", downstream.identity],
    ["http.request.resend_count", record.attempts > 1 ? record.attempts - 1 : undefined],
  ];
  return all.flatMap(([name, value]) => (value === undefined ? [] : [[name, value] as const]));
}
