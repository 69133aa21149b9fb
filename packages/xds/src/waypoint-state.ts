/**
 * What a waypoint was told, folded into what it serves. Pure, because every worker thread folds the same accepted resources.
 * Nothing half-known is in force: a cluster waits for its endpoints, a target for its route tables (waypoint contract 4.4).
 */
import { passthroughCluster, type ServedPort, type ServedTarget, unknownCluster, type WaypointConfig } from "@fairway/model";
import {
  clusterTypeUrl,
  decodeCluster,
  decodeEndpoints,
  decodeRouteTable,
  decodeTarget,
  endpointTypeUrl,
  listenerTypeUrl,
  routeTypeUrl,
} from "@fairway/protocol";
import { messageOf } from "@fairway/runtime";
import type { ReceivedResource } from "./subscription.ts";

/** Resources of one type that came together. Can be posted to a worker thread as it is. */
export interface WaypointResources {
  readonly typeUrl: string;
  readonly resources: readonly ReceivedResource[];
  readonly removed: readonly string[];
}

export interface WaypointState {
  /** What is in force. Never mutated; maps that did not change are shared with the former one. */
  readonly config: WaypointConfig;
  /** All that was accepted; a part of it may still wait for what it refers to. */
  readonly received: WaypointConfig;
}

const nothing: WaypointConfig = { targets: new Map(), routeTables: new Map(), clusters: new Map(), endpoints: new Map() };

export const emptyWaypointState: WaypointState = { config: nothing, received: nothing };

/**
 * Applies one push as a whole. A resource that cannot be read is named with the reason in `rejected`; what was held under its name
 * stays, and the others apply. Types that concern no waypoint change nothing.
 */
export function applyWaypointResources(
  state: WaypointState,
  change: WaypointResources,
): { readonly state: WaypointState; readonly rejected: ReadonlyMap<string, string> } {
  const rejected = new Map<string, string>();
  const received = receive(state.received, change, rejected);
  return { state: received === state.received ? state : { received, config: inForce(state.config, received) }, rejected };
}

function receive(received: WaypointConfig, change: WaypointResources, rejected: Map<string, string>): WaypointConfig {
  switch (change.typeUrl) {
    case clusterTypeUrl: {
      const clusters = updated(received.clusters, change, decodeCluster, ({ name }) => name, rejected);
      return clusters === received.clusters ? received : { ...received, clusters };
    }
    case endpointTypeUrl: {
      const endpoints = updated(received.endpoints, change, decodeEndpoints, ({ cluster }) => cluster, rejected);
      return endpoints === received.endpoints ? received : { ...received, endpoints };
    }
    case listenerTypeUrl: {
      const targets = updated(received.targets, change, decodeTarget, ({ name }) => name, rejected);
      return targets === received.targets ? received : { ...received, targets };
    }
    case routeTypeUrl: {
      const routeTables = updated(received.routeTables, change, decodeRouteTable, ({ name }) => name, rejected);
      return routeTables === received.routeTables ? received : { ...received, routeTables };
    }
    default:
      return received;
  }
}

/** Removals come first: a resource removed and sent again in one push is held. */
function updated<T>(
  held: ReadonlyMap<string, T>,
  { resources, removed }: WaypointResources,
  decode: (body: Uint8Array) => T,
  nameOf: (value: T) => string,
  rejected: Map<string, string>,
): ReadonlyMap<string, T> {
  const next = new Map(held);
  for (const name of removed) next.delete(name);
  const left = next.size;
  let accepted = 0;
  for (const { name, body } of resources) {
    try {
      const value = decode(body);
      const own = nameOf(value);
      // A resource whose content has another name could never be removed again.
      if (own !== name) {
        rejected.set(name, `the resource calls itself ${JSON.stringify(own.slice(0, maxNameShown))}`);
        continue;
      }
      next.set(name, value);
      accepted++;
    } catch (thrown) {
      rejected.set(name, messageOf(thrown));
    }
  }
  return accepted === 0 && left === held.size ? held : next;
}

const maxNameShown = 200;

/** What of all that was received can be served now; what waits keeps its former form, if it had one. */
function inForce(former: WaypointConfig, received: WaypointConfig): WaypointConfig {
  const clusters = standing(
    received.clusters,
    former.clusters,
    ({ name }) => name === passthroughCluster || name === unknownCluster || received.endpoints.has(name),
  );
  const targets = standing(received.targets, former.targets, (target) => routesOf(target).every((name) => received.routeTables.has(name)));
  // Parents keep their children: endpoints and routes go with the last cluster or target that needs them.
  const endpoints = withKept(received.endpoints, former.endpoints, clusters.keys());
  const routeTables = withKept(received.routeTables, former.routeTables, [...targets.values()].flatMap(routesOf));
  const config: WaypointConfig = {
    clusters: shared(former.clusters, clusters),
    endpoints: shared(former.endpoints, endpoints),
    targets: shared(former.targets, targets),
    routeTables: shared(former.routeTables, routeTables),
  };
  const same = (Object.keys(nothing) as (keyof WaypointConfig)[]).every((part) => config[part] === former[part]);
  return same ? former : config;
}

function routesOf({ ports, anyPort }: ServedTarget): readonly string[] {
  const all: readonly ServedPort[] = anyPort === undefined ? ports : [...ports, anyPort];
  return all.flatMap(({ routes }) => routes ?? []);
}

function standing<T>(received: ReadonlyMap<string, T>, former: ReadonlyMap<string, T>, complete: (value: T) => boolean): ReadonlyMap<string, T> {
  const values = new Map<string, T>();
  for (const [name, value] of received) {
    const stands = complete(value) ? value : former.get(name);
    if (stands !== undefined) values.set(name, stands);
  }
  return values;
}

function withKept<T>(received: ReadonlyMap<string, T>, former: ReadonlyMap<string, T>, needed: Iterable<string>): ReadonlyMap<string, T> {
  const kept = new Map<string, T>();
  for (const name of needed) {
    const value = received.has(name) ? undefined : former.get(name);
    if (value !== undefined) kept.set(name, value);
  }
  return kept.size === 0 ? received : new Map([...received, ...kept]);
}

function shared<T>(former: ReadonlyMap<string, T>, next: ReadonlyMap<string, T>): ReadonlyMap<string, T> {
  if (former.size !== next.size) return next;
  for (const [name, value] of next) if (former.get(name) !== value) return next;
  return former;
}
