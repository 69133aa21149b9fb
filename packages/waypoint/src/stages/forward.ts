/** The innermost stage: one attempt at the chosen backend. */
import type { Exchange, Stage } from "../exchange.ts";
import { waypointError } from "../failure.ts";
import type { Answer } from "../http-connection.ts";
import type { Upstreams } from "../upstreams.ts";

export interface ForwardOptions {
  readonly upstreams: Pick<Upstreams, "send">;
  readonly now: () => number;
}

export function forward({ upstreams, now }: ForwardOptions): Stage {
  return async (exchange) => {
    const { backend, record, request, attempt } = exchange;
    if (backend === undefined) throw waypointError("WAYPOINT_INTERNAL", "the request has no backend");
    const answer = await upstreams.send({
      cluster: backend.cluster,
      downstream: exchange.downstream,
      version: exchange.version,
      request: { head: exchange.head, upgrade: request.upgrade, onInform: (status, headers) => request.inform(status, headers) },
      body: exchange.body,
      tried: attempt.tried,
      signal: attempt.signal,
      onChosen: ({ address, workload }) => {
        record.upstream = address;
        record.workload = workload;
      },
    });
    return answered(exchange, answer, now());
  };
}

function answered({ record, startedAt }: Exchange, answer: Answer, now: number): Answer {
  record.detail = "via_upstream";
  record.failure = undefined;
  record.upstreamMs = now - startedAt;
  answer.headers.set("x-envoy-upstream-service-time", String(Math.round(record.upstreamMs)));
  return answer;
}
