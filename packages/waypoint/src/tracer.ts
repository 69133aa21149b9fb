/** Spans of this hop; replaced below by the exporter's. */
import type { Exchange } from "./exchange.ts";

export interface Span {
  readonly traceparent: string;
  end(exchange: Exchange, outcome: { readonly status: number; readonly failed: boolean }): void;
}

export interface Tracer {
  start(exchange: Exchange): Span | undefined;
}
