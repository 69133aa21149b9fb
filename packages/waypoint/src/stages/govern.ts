/**
 * What governs this request is what is in force now, however long ago its tunnel was opened (style: policy is read at use). A target that
 * was taken from this waypoint meanwhile is served no more.
 */
import type { WaypointConfig } from "@fairway/model";
import { destinationNow } from "../destination.ts";
import type { Stage } from "../exchange.ts";
import { waypointError } from "../failure.ts";

export function govern({ config }: { readonly config: () => WaypointConfig }): Stage {
  return (exchange, next) => {
    const { downstream } = exchange;
    const found = destinationNow(config(), downstream.target, downstream.port, downstream.destination);
    if (found.kind !== "served") throw waypointError("WAYPOINT_SUPERSEDED", found.message);
    if (found.target !== downstream.target || found.port !== downstream.port) exchange.downstream = { ...downstream, target: found.target, port: found.port };
    return next();
  };
}
