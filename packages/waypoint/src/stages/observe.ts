/** The outermost stage: whatever happens to a request, it is told of once, when the client's side is over. */
import type { Stage } from "../exchange.ts";
import type { Answer } from "../http-connection.ts";
import type { RequestTelemetry } from "../telemetry.ts";
import { watchBody } from "../watched-body.ts";

export function observe(telemetry: RequestTelemetry): Stage {
  return async (exchange, next) => {
    let answer: Answer | undefined;
    let trailerStatus: string | undefined;
    exchange.onDone((delivery) => telemetry.over(exchange, { answer, delivery, grpcStatus: answer?.headers.get("grpc-status") ?? trailerStatus }));
    answer = await next();
    const isGrpcAnswer = answer.headers.get("content-type")?.startsWith("application/grpc") === true;
    if (!isGrpcAnswer || answer.body.length === 0) return answer;
    // The status of a call comes last.
    const body = watchBody(answer.body, {
      onOver: (_, trailers) => {
        trailerStatus = trailers?.get("grpc-status");
      },
    });
    return { ...answer, body };
  };
}
