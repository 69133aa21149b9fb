/** Routes that need no upstream: redirects, and statuses that stand for a rule without a usable backend. */
import { HeaderFields, redirectLocation } from "@fairway/model";
import { emptyBody } from "../body.ts";
import type { Stage } from "../exchange.ts";
import { waypointError } from "../failure.ts";
import { localAnswer } from "../rescue.ts";

export function answerHere(): Stage {
  return (exchange, next) => {
    const { route, head, record } = exchange;
    if (route === undefined) throw waypointError("WAYPOINT_INTERNAL", "the request was not routed");
    const { action } = route;
    switch (action.kind) {
      case "forward":
        return next();
      case "respond":
        record.detail = "direct_response";
        return Promise.resolve(localAnswer(head, { status: action.status, body: action.body }));
      case "redirect": {
        record.detail = "direct_response";
        const headers = new HeaderFields(["location", redirectLocation(head, route, action.redirect)]);
        return Promise.resolve({ status: action.redirect.status, headers, body: emptyBody });
      }
    }
  };
}
