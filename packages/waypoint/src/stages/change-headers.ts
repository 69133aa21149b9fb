/** What the route changes on the way there and back (controller contract 5.3): headers, authority, path. */
import { changedHeaders, type HeaderChanges, type HeaderFields, noHeaderChanges, type RequestHead, rewritten } from "@fairway/model";
import type { Exchange, Stage } from "../exchange.ts";
import type { Answer } from "../http-connection.ts";

export function changeHeaders(): Stage {
  return (exchange, next) => {
    const { route, backend } = exchange;
    if (route === undefined) return next();
    exchange.head = changedHead(exchange.head, exchange);
    const ofBackend = backend?.responseHeaders ?? noHeaderChanges;
    return isNothing(ofBackend) && isNothing(route.responseHeaders) ? next() : changedAnswer(next, ofBackend, route.responseHeaders);
  };
}

async function changedAnswer(next: () => Promise<Answer>, ofBackend: HeaderChanges, ofRoute: HeaderChanges): Promise<Answer> {
  const answer = await next();
  return { ...answer, headers: changedHeaders(changedHeaders(answer.headers, ofBackend), ofRoute) };
}

function isNothing({ set, add, remove }: HeaderChanges): boolean {
  return set.length === 0 && add.length === 0 && remove.length === 0;
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
