/** One form of the path for everybody: what policy judges is what is routed and what the application gets (waypoint contract 6.1). */
import { normalizePath, type PathNormalization } from "@fairway/model";
import type { Stage } from "../exchange.ts";
import { waypointError } from "../failure.ts";

/** Refuses with 400 what has no such form. */
export function normalise({ pathNormalization }: { readonly pathNormalization: PathNormalization }): Stage {
  return (exchange, next) => {
    const { head } = exchange;
    const normalised = normalizePath(head.path, pathNormalization);
    if ("refused" in normalised) throw waypointError("WAYPOINT_BAD_PATH", normalised.refused);
    if (normalised.path !== head.path) exchange.head = { ...head, path: normalised.path };
    return next();
  };
}
