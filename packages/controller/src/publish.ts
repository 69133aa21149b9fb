/**
 * From the mesh to what is served: each resource is encoded once, versioned by its content, and touched only when its own object
 * changed. The discovery server gathers changes and keeps the order of types (policies before the workloads that refer to them).
 */
import type { Collection, CollectionEvent } from "@fairway/kube";
import { type AuthorizationPolicy, policyKey, type Service, serviceKey, type Workload } from "@fairway/model";
import { addressTypeUrl, authorizationTypeUrl, encodeAuthorization, encodeService, encodeWorkload, serviceAliases, workloadAliases } from "@fairway/protocol";
import { type Logger, MeshError } from "@fairway/runtime";
import { MutableResourceSource, type ResourceContent, type ServedScope, type XdsScope } from "@fairway/xds";
import type { Mesh } from "./mesh.ts";
import type { ControllerMetrics } from "./metrics.ts";
import type { WaypointPublication } from "./waypoint-publication.ts";
import { shortType } from "./xds-types.ts";

export interface Publication extends Disposable {
  /** In push order: to nodes policies first (architecture 7.1), to a waypoint the addresses and then what it alone is told. */
  openScope(scope: XdsScope): ServedScope;
}

export interface PublishOptions {
  readonly mesh: Pick<Mesh, "workloads" | "services" | "policies">;
  readonly waypoints: Pick<WaypointPublication, "open">;
  readonly log: Logger;
  readonly metrics: ControllerMetrics;
}

/** How a kind of resource is named and encoded (controller contract 2.2). */
interface Kind<T> {
  readonly nameOf: (value: T) => string;
  readonly encode: (value: T) => Omit<ResourceContent, "name">;
}

const workloadKind: Kind<Workload> = {
  nameOf: ({ uid }) => uid,
  encode: (workload) => ({ body: encodeWorkload(workload), aliases: workloadAliases(workload), partOf: [...workload.services.keys()] }),
};
const serviceKind: Kind<Service> = {
  nameOf: ({ namespace, hostname }) => serviceKey(namespace, hostname),
  encode: (service) => ({ body: encodeService(service), aliases: serviceAliases(service) }),
};
const policyKind: Kind<AuthorizationPolicy> = {
  nameOf: ({ namespace, name }) => policyKey(namespace, name),
  encode: (policy) => ({ body: encodeAuthorization(policy) }),
};

/** Publishes what is there now, and then every change. The caller waits until all inputs are in sync: a ztunnel must never see half a mesh. */
export function publish({ mesh, waypoints, log, metrics }: PublishOptions): Publication {
  const addresses = new MutableResourceSource(addressTypeUrl);
  const authorizations = new MutableResourceSource(authorizationTypeUrl);
  const publishing = { log, metrics };
  const subscriptions = [
    follow(mesh.policies, policyKind, authorizations, publishing),
    follow(mesh.services, serviceKind, addresses, publishing),
    follow(mesh.workloads, workloadKind, addresses, publishing),
  ];
  const everybody = (...sources: readonly MutableResourceSource[]): ServedScope => ({ sources, [Symbol.dispose]: () => undefined });
  return {
    openScope(scope) {
      if (scope.kind === "node") return everybody(authorizations, addresses);
      if (scope.kind === "grpc") return everybody();
      const own = waypoints.open(scope.waypoint);
      return { sources: [addresses, ...own.sources], [Symbol.dispose]: () => own[Symbol.dispose]() };
    },
    [Symbol.dispose]: () => {
      for (const subscription of subscriptions) subscription[Symbol.dispose]();
    },
  };
}

function follow<T>(
  collection: Collection<T>,
  kind: Kind<T>,
  source: MutableResourceSource,
  { log, metrics }: { log: Logger; metrics: ControllerMetrics },
): Disposable {
  const type = shortType(source.typeUrl);
  const update = (batch: Parameters<MutableResourceSource["update"]>[0]): void => {
    const changed = source.update(batch);
    metrics.published.inc({ type }, changed.size);
    metrics.resources.set({ type }, source.size);
    if (changed.size > 0) log.debug("published", { type, changed: changed.size });
  };
  update({ set: [...collection.list()].flatMap((value) => content(kind, value, log)) });
  return collection.subscribe((events) => update(changesOf(events, kind, log)));
}

/** One batch of events as names that leave and resources that stand; an object can come under another name. */
function changesOf<T>(events: readonly CollectionEvent<T>[], kind: Kind<T>, log: Logger): { set: Iterable<ResourceContent>; delete: Iterable<string> } {
  const set = new Map<string, ResourceContent>();
  const gone = new Set<string>();
  for (const event of events) {
    const name = kind.nameOf(event.object);
    const former = event.type === "updated" ? kind.nameOf(event.previous) : name;
    if (event.type === "deleted" || former !== name) {
      gone.add(former);
      set.delete(former);
    }
    if (event.type === "deleted") continue;
    for (const resource of content(kind, event.object, log)) set.set(name, resource);
  }
  return { set: set.values(), delete: gone };
}

/** One resource, or none when it has no form on the wire: what was served before stays, and nothing else suffers. */
function content<T>({ nameOf, encode }: Kind<T>, value: T, log: Logger): readonly ResourceContent[] {
  const name = nameOf(value);
  try {
    return [{ name, ...encode(value) }];
  } catch (thrown) {
    log.error("a resource cannot be encoded and stays as it was", { name, error: MeshError.from(thrown, "CONTROLLER_PUBLISH_FAILED") });
    return [];
  }
}
