/**
 * What each waypoint is served: its own sources, one per type, versioned by content. They come with the waypoint's first resource or
 * its first client and go with the last of both.
 */
import type { Collection, CollectionEvent } from "@fairway/kube";
import {
  clusterTypeUrl,
  encodeCluster,
  encodeEndpoints,
  encodeRouteTable,
  encodeTarget,
  endpointTypeUrl,
  listenerTypeUrl,
  routeTypeUrl,
} from "@fairway/protocol";
import { type Logger, MeshError } from "@fairway/runtime";
import { MutableResourceSource, type ResourceContent, type ResourceSource } from "@fairway/xds";
import type { ControllerMetrics } from "./metrics.ts";
import { type WaypointResource, waypointResourceName } from "./waypoint-resource.ts";
import { shortType } from "./xds-types.ts";

type Kind = WaypointResource["kind"];

export interface WaypointPublicationOptions {
  readonly resources: Collection<WaypointResource>;
  readonly log: Logger;
  readonly metrics: ControllerMetrics;
}

interface Waypoint {
  readonly sources: Readonly<Record<Kind, MutableResourceSource>>;
  clients: number;
}

interface Batch {
  readonly set: Map<string, ResourceContent>;
  readonly gone: Set<string>;
}

/** Waypoint contract 4.4. */
const pushOrder: readonly Kind[] = ["cluster", "endpoints", "target", "routes"];

export class WaypointPublication implements Disposable {
  readonly #options: WaypointPublicationOptions;
  readonly #waypoints = new Map<string, Waypoint>();
  readonly #subscription: Disposable;

  constructor(options: WaypointPublicationOptions) {
    this.#options = options;
    const { resources } = options;
    this.#apply([...resources.entries()].map(([key, object]) => ({ type: "added", key, object })));
    this.#subscription = resources.subscribe((events) => this.#apply(events));
  }

  /** `<namespace>/<name>` of the waypoints that have resources or clients. */
  get waypoints(): Iterable<string> {
    return this.#waypoints.keys();
  }

  /** The sources of one waypoint, in push order, until disposed; also of one that has no resources yet. */
  open(waypoint: string): { readonly sources: readonly ResourceSource[] } & Disposable {
    const opened = this.#waypoint(waypoint);
    opened.clients++;
    return {
      sources: pushOrder.map((kind) => opened.sources[kind]),
      [Symbol.dispose]: () => {
        opened.clients--;
        this.#dropIfUnused(waypoint);
      },
    };
  }

  [Symbol.dispose](): void {
    this.#subscription[Symbol.dispose]();
  }

  #apply(events: readonly CollectionEvent<WaypointResource>[]): void {
    const { log, metrics } = this.#options;
    const batches = new Map<string, Map<Kind, Batch>>();
    for (const event of events) {
      const { object } = event;
      const name = waypointResourceName(object);
      const { set, gone } = batchOf(batches, object);
      if (event.type === "deleted") {
        gone.add(name);
        set.delete(name);
      } else {
        const content = this.#content(object, name);
        if (content !== undefined) set.set(name, content);
      }
    }
    for (const [waypoint, kinds] of batches) {
      const { sources } = this.#waypoint(waypoint);
      for (const kind of pushOrder) {
        const batch = kinds.get(kind);
        if (batch === undefined) continue;
        const type = shortType(sources[kind].typeUrl);
        const before = sources[kind].size;
        const changed = sources[kind].update({ set: batch.set.values(), delete: batch.gone });
        metrics.published.inc({ type }, changed.size);
        metrics.resources.inc({ type }, sources[kind].size - before);
        if (changed.size > 0) log.debug("published", { waypoint, type, changed: changed.size });
      }
      this.#dropIfUnused(waypoint);
    }
  }

  /** Undefined when it has no form on the wire: what was served before stays, and nothing else suffers. */
  #content(resource: WaypointResource, name: string): ResourceContent | undefined {
    try {
      return { name, body: encode(resource) };
    } catch (thrown) {
      const { log } = this.#options;
      log.error("a resource of a waypoint cannot be encoded and stays as it was", {
        waypoint: resource.waypoint,
        name,
        error: MeshError.from(thrown, "CONTROLLER_PUBLISH_FAILED"),
      });
      return undefined;
    }
  }

  #waypoint(name: string): Waypoint {
    const known = this.#waypoints.get(name);
    if (known !== undefined) return known;
    const waypoint = {
      sources: {
        cluster: new MutableResourceSource(clusterTypeUrl),
        endpoints: new MutableResourceSource(endpointTypeUrl),
        target: new MutableResourceSource(listenerTypeUrl),
        routes: new MutableResourceSource(routeTypeUrl),
      },
      clients: 0,
    };
    this.#waypoints.set(name, waypoint);
    return waypoint;
  }

  #dropIfUnused(name: string): void {
    const waypoint = this.#waypoints.get(name);
    if (waypoint?.clients === 0 && Object.values(waypoint.sources).every(({ size }) => size === 0)) this.#waypoints.delete(name);
  }
}

/** Throws what has no form on the wire. */
function encode({ kind, value }: WaypointResource): Uint8Array {
  switch (kind) {
    case "target":
      return encodeTarget(value);
    case "routes":
      return encodeRouteTable(value);
    case "cluster":
      return encodeCluster(value);
    case "endpoints":
      return encodeEndpoints(value);
  }
}

function batchOf(batches: Map<string, Map<Kind, Batch>>, { waypoint, kind }: WaypointResource): Batch {
  const kinds = batches.get(waypoint) ?? new Map<Kind, Batch>();
  batches.set(waypoint, kinds);
  const batch = kinds.get(kind) ?? { set: new Map(), gone: new Set() };
  kinds.set(kind, batch);
  return batch;
}
