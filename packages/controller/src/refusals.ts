/** What waypoints said against what they were told, for the status of the objects that it was made of. */
import { type Collection, type Fetch, index } from "@fairway/kube";
import type { Rejection } from "./rejections.ts";
import { rejectionKey } from "./rejections.ts";
import type { WaypointResource } from "./waypoint-resource.ts";
import type { Binding } from "./waypoints.ts";

export interface RejectionsOf {
  /** Against the route table of a service's port, or of any of its ports. */
  readonly ofRoutes: (fetch: Fetch, binding: Binding, hostname: string | undefined, port: number | undefined) => string | undefined;
  /** Against a target that carries the policy or the token rules of this key. */
  readonly ofPolicy: (fetch: Fetch, key: string) => string | undefined;
}

const anyWaypoint = "*";

export function rejectionsOf(rejections: Collection<Rejection>, resources: Collection<WaypointResource>): RejectionsOf {
  const byWaypoint = index(rejections, ({ waypoint }) => (waypoint === undefined ? [] : [waypoint, anyWaypoint]));
  return {
    ofRoutes: (fetch, binding, hostname, port) => {
      if (binding.kind !== "bound" || hostname === undefined) return undefined;
      const waypoint = `${binding.waypoint.namespace}/${binding.waypoint.name}`;
      const start = port === undefined ? "inbound-vip|" : `inbound-vip|${port}|`;
      const found = fetch
        .lookup(byWaypoint, waypoint)
        .find((rejection) => rejectionKey(rejection).startsWith(`${waypoint}|routes|${start}`) && rejection.name.endsWith(`|http|${hostname}`));
      return found && inWords(found);
    },
    ofPolicy: (fetch, key) => {
      const found = fetch.lookup(byWaypoint, anyWaypoint).find((rejection) => {
        const resource = fetch.get(resources, rejectionKey(rejection));
        return resource?.kind === "target" && mentions(resource, key);
      });
      return found && inWords(found);
    },
  };
}

function mentions({ value: { ports, anyPort } }: Extract<WaypointResource, { kind: "target" }>, key: string): boolean {
  const all = anyPort === undefined ? ports : [...ports, anyPort];
  return all.some(
    ({ policies, tokens }) => policies.some(({ namespace, name }) => `${namespace}/${name}` === key) || tokens.some(({ origin }) => origin === key),
  );
}

function inWords({ waypoint = "", proxies, message, name }: Rejection): string {
  return `rejected by waypoint ${waypoint} (${proxies} of its pods), which keeps what it had before: ${name}: ${message}`;
}
