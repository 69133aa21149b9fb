/**
 * The end of patience: the route's limit or the caller's gRPC deadline, whichever is earlier, for the whole exchange. It runs until the last
 * byte of the answer; a connection that was upgraded has no such end.
 */
import { isGrpc } from "@fairway/model";
import type { Clock } from "@fairway/runtime";
import type { Exchange, Stage } from "../exchange.ts";
import { type WaypointCode, waypointError } from "../failure.ts";
import { formatGrpcTimeout, parseGrpcTimeout } from "../grpc-timeout.ts";
import type { Answer } from "../http-connection.ts";
import { watchBody } from "../watched-body.ts";

export function timeout({ clock }: { readonly clock: Clock }): Stage {
  return (exchange, next) => {
    const limit = limitOf(exchange);
    if (limit === undefined || exchange.request.upgrade !== undefined) return next();
    const left = Math.max(0, limit.ms - (clock.monotonic() - exchange.startedAt));
    const timer = clock.schedule(left, () => {
      exchange.record.flags.add("UT");
      exchange.abort(waypointError(limit.code, `the exchange took longer than ${limit.ms} ms`));
    });
    exchange.onDone(() => timer[Symbol.dispose]());
    if (limit.tellsUpstream) {
      const headers = exchange.head.headers.clone();
      headers.set("grpc-timeout", formatGrpcTimeout(left));
      exchange.head = { ...exchange.head, headers };
    }
    return bounded(exchange, next);
  };
}

async function bounded({ signal }: Exchange, next: () => Promise<Answer>): Promise<Answer> {
  const answer = await next();
  // A client that leaves cancels the body; that the time is up nobody else would notice.
  return answer.body.length === 0 ? answer : { ...answer, body: watchBody(answer.body, { onOver: () => undefined, signal }) };
}

function limitOf({ route, head }: Exchange): { readonly ms: number; readonly code: WaypointCode; readonly tellsUpstream: boolean } | undefined {
  const ofRoute = route?.action.kind === "forward" ? route.action.timeoutMs : undefined;
  const deadline = isGrpc(head) ? parseGrpcTimeout(head.headers.get("grpc-timeout")) : undefined;
  if (deadline !== undefined && deadline <= (ofRoute ?? Number.POSITIVE_INFINITY))
    return { ms: deadline, code: "WAYPOINT_DEADLINE_EXCEEDED", tellsUpstream: true };
  return ofRoute === undefined ? undefined : { ms: ofRoute, code: "WAYPOINT_UPSTREAM_TIMEOUT", tellsUpstream: isGrpc(head) };
}
