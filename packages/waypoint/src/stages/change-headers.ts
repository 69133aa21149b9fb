/** What the route changes on the way there and back (controller contract 5.3): headers, authority, path. */
import { changedHeaders, type HeaderFields, type RequestHead, rewritten } from "@fairway/model";
import type { Exchange, Stage } from "../exchange.ts";

export function changeHeaders(): Stage {
  return async (exchange, next) => {
    const { route, backend } = exchange;
    if (route === undefined) return next();
    exchange.head = changedHead(exchange.head, exchange);
    const answer = await next();
    const inner = backend === undefined ? answer.headers : changedHeaders(answer.headers, backend.responseHeaders);
    const headers = changedHeaders(inner, route.responseHeaders);
    return headers === answer.headers ? answer : { ...answer, headers };
  };
}

function changedHead(head: RequestHead, { route, backend }: Pick<Exchange, "route" | "backend">): RequestHead {
  if (route === undefined || route.action.kind !== "forward") return head;
  const ofRoute = changedHeaders(head.headers, route.requestHeaders);
  const headers = backend === undefined ? ofRoute : changedHeaders(ofRoute, backend.requestHeaders);
  const routed = rewritten(head, route);
  if (headers === head.headers && routed === head) return head;
  const { fields, host } = withoutHost(headers);
  if (routed.path !== head.path) fields.set("x-envoy-original-path", head.path);
  return { ...routed, authority: host ?? routed.authority, headers: fields };
}

/** Whoever sets `host` means the authority: there is no second one. */
function withoutHost(headers: HeaderFields): { readonly fields: HeaderFields; readonly host: string | undefined } {
  const host = headers.get("host") ?? headers.get(":authority");
  const fields = headers.clone();
  if (host !== undefined) {
    fields.delete("host");
    fields.delete(":authority");
  }
  return { fields, host };
}
