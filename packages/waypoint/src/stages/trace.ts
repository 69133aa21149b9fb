/** This hop in a distributed trace (W3C Trace Context): a span of our own between the caller's and the upstream's. */
import type { Exchange, Stage } from "../exchange.ts";
import type { Answer } from "../http-connection.ts";
import type { Span, Tracer } from "../tracer.ts";

export function trace(tracer: Tracer): Stage {
  return (exchange, next) => {
    const span = tracer.start(exchange);
    return span === undefined ? next() : traced(exchange, span, next);
  };
}

async function traced(exchange: Exchange, span: Span, next: () => Promise<Answer>): Promise<Answer> {
  const headers = exchange.head.headers.clone();
  headers.set("traceparent", span.traceparent);
  exchange.head = { ...exchange.head, headers };
  let status = 0;
  exchange.onDone((delivery) => span.end(exchange, { status, failed: delivery.error !== undefined }));
  const answer = await next();
  status = answer.status;
  return answer;
}
