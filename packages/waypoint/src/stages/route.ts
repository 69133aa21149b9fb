/** Which route the request takes and, where a route splits, which backend: once, whatever happens to the attempts. */
import { pickByWeight, type RouteTable, routeOf, unknownCluster } from "@fairway/model";
import type { Stage } from "../exchange.ts";
import { waypointError } from "../failure.ts";

export interface RouteOptions {
  readonly routeTable: (name: string) => RouteTable | undefined;
  /** Returns 0..1. */
  readonly random: () => number;
}

export function route({ routeTable, random }: RouteOptions): Stage {
  return (exchange, next) => {
    const { routes } = exchange.downstream.port;
    const table = routes === undefined ? undefined : routeTable(routes);
    const found = table && routeOf(table, exchange.head);
    if (found === undefined) throw waypointError("WAYPOINT_NO_ROUTE", `no route of ${routes ?? "this port"} matches`);
    exchange.route = found;
    if (found.action.kind === "forward") {
      const backend = pickByWeight(found.action.backends, ({ weight }) => weight, random);
      if (backend === undefined) throw waypointError("WAYPOINT_NO_BACKEND", `route ${found.name} has no backend`);
      exchange.backend = backend;
      exchange.record.cluster = backend.cluster;
      if (backend.cluster === unknownCluster) throw waypointError("WAYPOINT_NO_BACKEND", `a backend of route ${found.name} does not exist or may not be used`);
    }
    return next();
  };
}
