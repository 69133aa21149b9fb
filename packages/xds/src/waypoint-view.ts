/** The live configuration of one waypoint, and the mesh beside it, over one stream: what was accepted stays while the control plane is away. */
import { applyChange, emptySnapshot, type WaypointConfig } from "@fairway/model";
import { clusterTypeUrl, endpointTypeUrl, listenerTypeUrl, routeTypeUrl } from "@fairway/protocol";
import { type Clock, type Logger, type Watch, Watched } from "@fairway/runtime";
import { XdsClient, type XdsConnection } from "./client.ts";
import type { ControlPlaneAccess } from "./control-plane-access.ts";
import { decideNow } from "./decide-now.ts";
import { addressSink } from "./mesh-sinks.ts";
import type { MeshChange, MeshView } from "./mesh-source.ts";
import type { NodeIdentity } from "./node.ts";
import type { ReceivedResource, ResourceSink } from "./subscription.ts";
import { waitForWorkload } from "./wait-for-workload.ts";
import { applyWaypointResources, emptyWaypointState, type WaypointResources } from "./waypoint-state.ts";

export interface WaypointViewOptions {
  readonly access: ControlPlaneAccess;
  /** See `waypointNode`. Which waypoint is served is decided by the control plane, by our token. */
  readonly node: NodeIdentity;
  readonly clock: Clock;
  readonly log: Logger;
  readonly maxMessageBytes?: number;
  readonly random?: () => number;
}

export interface WaypointView extends AsyncDisposable {
  /** What is in force; replaced at most once a push, and never half of one. */
  readonly changes: Watch<WaypointConfig>;
  /** Workloads and services of the mesh, from the same stream, which goes with this view. It holds no policies: a waypoint's own are in its targets. */
  readonly mesh: MeshView;
  /** True once every type had its first answer; resources that were refused do not keep the others waiting. */
  readonly synced: Watch<boolean>;
  readonly connection: Watch<XdsConnection>;
  /**
   * Hands `listener` everything that was accepted so far, and then each push as it was accepted, in order. Whoever applies them with
   * `applyWaypointResources` has the configuration of `changes`: worker threads. Dispose to stop.
   */
  follow(listener: (change: WaypointResources) => void): Disposable;
}

/** In the order in which they are subscribed and replayed. */
const waypointTypeUrls = [clusterTypeUrl, endpointTypeUrl, listenerTypeUrl, routeTypeUrl] as const;

/** Opens the stream in the background and keeps it; returns at once. */
export function createWaypointView(options: WaypointViewOptions): WaypointView {
  const { access, node, clock, log, maxMessageBytes, random } = options;
  const accepted = new AcceptedResources();
  const meshChanges = new Watched<MeshChange>({ snapshot: emptySnapshot, policiesChanged: true, workloadsChanged: true });
  const addresses = addressSink(meshChanges, (change, touched) => meshChanges.set({ snapshot: applyChange(meshChanges.current.snapshot, change), ...touched }));
  const client = new XdsClient({
    access,
    node,
    sinks: [addresses, ...waypointTypeUrls.map((typeUrl) => accepted.sink(typeUrl))],
    clock,
    log,
    ...(maxMessageBytes === undefined ? {} : { maxMessageBytes }),
    ...(random === undefined ? {} : { random }),
  });
  const close = (): Promise<void> => client[Symbol.asyncDispose]();
  const mesh: MeshView = {
    changes: meshChanges,
    get snapshot() {
      return meshChanges.current.snapshot;
    },
    synced: client.synced,
    decide: (decision, wait) => decideNow(meshChanges, decision, wait),
    waitForWorkload: (pod, wait) => waitForWorkload({ changes: meshChanges, nodeName: undefined, clock }, pod, wait),
    [Symbol.asyncDispose]: close,
  };
  return {
    changes: accepted.config,
    mesh,
    synced: client.synced,
    connection: client.connection,
    follow: (listener) => accepted.follow(listener),
    [Symbol.asyncDispose]: close,
  };
}

/** The accepted resources as bytes, and the configuration they amount to. */
class AcceptedResources {
  readonly #config = new Watched<WaypointConfig>(emptyWaypointState.config);
  readonly #listeners = new Set<(change: WaypointResources) => void>();
  /** By type URL and name. */
  readonly #held = new Map<string, Map<string, ReceivedResource>>(waypointTypeUrls.map((typeUrl) => [typeUrl, new Map()]));
  #state = emptyWaypointState;

  get config(): Watch<WaypointConfig> {
    return this.#config;
  }

  sink(typeUrl: string): ResourceSink {
    return {
      typeUrl,
      syncsWithRejections: true,
      apply: (resources, removed) => this.#apply({ typeUrl, resources, removed }),
    };
  }

  follow(listener: (change: WaypointResources) => void): Disposable {
    for (const [typeUrl, resources] of this.#held) if (resources.size > 0) listener({ typeUrl, resources: [...resources.values()], removed: [] });
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  #apply(change: WaypointResources): ReadonlyMap<string, string> {
    const { state, rejected } = applyWaypointResources(this.#state, change);
    const resources = change.resources.filter(({ name }) => !rejected.has(name));
    const held = this.#held.get(change.typeUrl);
    for (const name of change.removed) held?.delete(name);
    for (const resource of resources) held?.set(resource.name, resource);
    this.#state = state;
    if (resources.length > 0 || change.removed.length > 0) {
      for (const listener of [...this.#listeners]) listener({ typeUrl: change.typeUrl, resources, removed: change.removed });
    }
    this.#config.set(state.config);
    return rejected;
  }
}
