/** What connected proxies said against the resources they were sent: for the status of the objects these were made of. */
import { MutableCollection } from "@fairway/kube";
import { authorizationTypeUrl, clusterTypeUrl, endpointTypeUrl, listenerTypeUrl, routeTypeUrl } from "@fairway/protocol";
import type { Logger, Watch } from "@fairway/runtime";
import type { XdsClientStatus } from "@fairway/xds";
import type { ControllerMetrics } from "./metrics.ts";
import { type WaypointResource, waypointKey } from "./waypoint-resource.ts";
import { shortType } from "./xds-types.ts";

export interface Rejection {
  readonly typeUrl: string;
  /** The waypoint that rejected it, `<namespace>/<name>` of its Gateway; undefined when ztunnels did. */
  readonly waypoint: string | undefined;
  /** The resource's xDS name: a policy's key, or the name of what a waypoint was told. */
  readonly name: string;
  readonly message: string;
  /** How many proxies said so. */
  readonly proxies: number;
}

const waypointKinds: ReadonlyMap<string, WaypointResource["kind"]> = new Map([
  [clusterTypeUrl, "cluster"],
  [endpointTypeUrl, "endpoints"],
  [listenerTypeUrl, "target"],
  [routeTypeUrl, "routes"],
]);
const clientKinds = ["node", "waypoint", "grpc"] as const;

/** A policy's rejection has the policy's key, that of a waypoint's resource the key of the resource (`waypointResourceKey`). */
export function rejectionKey({ typeUrl, waypoint, name }: Pick<Rejection, "typeUrl" | "waypoint" | "name">): string {
  const kind = waypointKinds.get(typeUrl);
  return waypoint === undefined || kind === undefined ? name : waypointKey(waypoint, kind, name);
}

/** The resources that connected proxies refuse, kept up to date. Dispose to stop. */
export function followRejections(
  clients: Watch<ReadonlyMap<string, XdsClientStatus>>,
  { log, metrics }: { log: Logger; metrics: ControllerMetrics },
): { rejections: MutableCollection<Rejection> } & Disposable {
  const rejections = new MutableCollection<Rejection>(rejectionKey);
  const update = (current: ReadonlyMap<string, XdsClientStatus>): void => {
    for (const type of clientKinds) metrics.xdsClients.set({ type }, [...current.values()].filter(({ peer }) => peer.scope.kind === type).length);
    const found = collectRejections(current.values());
    const gone = [...rejections.entries()].map(([key]) => key).filter((key) => !found.has(key));
    if (gone.length > 0) rejections.delete(...gone);
    for (const [key, rejection] of found) {
      const known = rejections.get(key);
      if (known?.message === rejection.message && known.proxies === rejection.proxies) continue;
      const { name, message, proxies, waypoint, typeUrl } = rejection;
      log.warn("a resource was rejected", { type: shortType(typeUrl), name, ...(waypoint === undefined ? {} : { waypoint }), proxies, message });
      rejections.set(rejection);
    }
  };
  const subscription = clients.subscribe(update);
  return { rejections, [Symbol.dispose]: () => subscription[Symbol.dispose]() };
}

/** By key, over all clients: policies as ztunnels see them, and what each waypoint was told. */
export function collectRejections(clients: Iterable<XdsClientStatus>): ReadonlyMap<string, Rejection> {
  const found = new Map<string, Rejection>();
  for (const { peer, types } of clients) {
    const { scope } = peer;
    const waypoint = scope.kind === "waypoint" ? scope.waypoint : undefined;
    const typeUrls = scope.kind === "waypoint" ? waypointKinds.keys() : scope.kind === "node" ? [authorizationTypeUrl] : [];
    for (const typeUrl of typeUrls) {
      for (const [name, message] of types.get(typeUrl)?.rejected ?? []) {
        const key = rejectionKey({ typeUrl, waypoint, name });
        const known = found.get(key);
        found.set(key, { typeUrl, waypoint, name, message: known?.message ?? message, proxies: (known?.proxies ?? 0) + 1 });
      }
    }
  }
  return found;
}
