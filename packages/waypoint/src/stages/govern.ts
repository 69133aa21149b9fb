/**
 * What governs this request is what is in force now, however long ago its tunnel was opened (style: policy is read at use). A target that
 * was taken from this waypoint meanwhile is served no more.
 */
import type { WaypointConfig } from "@fairway/model";
import { destinationNow } from "../destination.ts";
import type { Downstream, Stage } from "../exchange.ts";
import { waypointError } from "../failure.ts";

export function govern({ config }: { readonly config: () => WaypointConfig }): Stage {
  /** The requests of one connection share what they are governed by, and with it their labels. */
  const latest = new WeakMap<Downstream, Downstream>();
  return (exchange, next) => {
    const { downstream } = exchange;
    const known = latest.get(downstream) ?? downstream;
    const found = destinationNow(config(), known.target, known.port, known.destination);
    if (found.kind !== "served") throw waypointError("WAYPOINT_SUPERSEDED", found.message);
    exchange.downstream = known;
    if (found.target !== known.target || found.port !== known.port) {
      exchange.downstream = { ...known, target: found.target, port: found.port };
      latest.set(downstream, exchange.downstream);
    }
    return next();
  };
}
