/**
 * The live mesh of a proxy: discovery decoded into snapshots. Policies are subscribed before addresses and applied as they come; on demand
 * only the addresses that somebody asks for are held, the policies still all.
 */
import { applyChange, emptySnapshot, type SnapshotChange, serviceKey } from "@fairway/model";
import { addressTypeUrl } from "@fairway/protocol";
import { type Clock, type Logger, type Watch, Watched } from "@fairway/runtime";
import { XdsClient, type XdsConnection, type XdsObserver } from "./client.ts";
import type { ControlPlaneAccess } from "./control-plane-access.ts";
import { decideNow } from "./decide-now.ts";
import { decideOnDemand, namesLookedAt } from "./decide-on-demand.ts";
import { Demand, type DemandLimits } from "./demand.ts";
import { addressSink, policySink } from "./mesh-sinks.ts";
import type { MeshChange, MeshRelease, MeshView } from "./mesh-source.ts";
import type { NodeIdentity } from "./node.ts";
import { unclaimed } from "./on-demand.ts";
import { waitForWorkload } from "./wait-for-workload.ts";

export interface XdsMeshViewOptions {
  readonly access: ControlPlaneAccess;
  readonly node: NodeIdentity;
  /** Name of the Kubernetes node whose pods are local; all when undefined. */
  readonly nodeName: string | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  /** What is known before anything was received, from a local file. */
  readonly initial?: SnapshotChange;
  readonly maxMessageBytes?: number;
  readonly random?: () => number;
  readonly observer?: XdsObserver | undefined;
  /** Subscribe to no address but those that are asked for. `clusterId` is the first part of the uids of local pods. */
  readonly onDemand?: ({ readonly clusterId: string } & Partial<DemandLimits>) | undefined;
  /** Namespace whose policies are for the whole mesh: what an unreadable policy of it denies. */
  readonly rootNamespace?: string | undefined;
}

export interface XdsMeshView extends MeshView {
  readonly connection: Watch<XdsConnection>;
  /** Of a view on demand: the names it asked for. */
  readonly demand: Pick<Demand, "size" | "fetch"> | undefined;
}

const defaultRootNamespace = "istio-system";

/** Opens the stream in the background and keeps it; returns at once. */
export function createXdsMeshView(options: XdsMeshViewOptions): XdsMeshView {
  const { access, node, nodeName, clock, log, initial, maxMessageBytes, random, observer, onDemand, rootNamespace = defaultRootNamespace } = options;
  const snapshot = initial === undefined ? emptySnapshot : applyChange(emptySnapshot, initial);
  const changes = new Watched<MeshChange>({ snapshot, policiesChanged: true, workloadsChanged: true });
  const commit = (change: SnapshotChange, touched: Omit<MeshChange, "snapshot">): void =>
    changes.set({ snapshot: applyChange(changes.current.snapshot, change), ...touched });
  const demand =
    onDemand &&
    new Demand({
      clock,
      limits: onDemand,
      hooks: { subscribe: (names) => client.subscribe(addressTypeUrl, names), release: letGo, live: () => client.connection.current.kind === "connected" },
    });
  const releases = new Set<(release: MeshRelease) => void>();
  const kept = {
    nodeName,
    names: new Set(
      [...snapshot.workloads()]
        .map(({ uid }): string => uid)
        .concat([...snapshot.services()].map(({ namespace, hostname }) => serviceKey(namespace, hostname))),
    ),
  };
  const client: XdsClient = new XdsClient({
    access,
    node,
    sinks: [policySink(changes, commit, { rootNamespace }), { ...addressSink(changes, commit, demand), wanted: demand }],
    clock,
    log,
    observer,
    ...(maxMessageBytes === undefined ? {} : { maxMessageBytes }),
    ...(random === undefined ? {} : { random }),
  });
  function letGo(names: readonly string[]): void {
    if (demand === undefined || onDemand === undefined) return;
    const { clusterId } = onDemand;
    for (const listener of [...releases]) listener({ names: new Set(names), namesOf: (look) => namesLookedAt(look, clusterId) });
    const gone = unclaimed(changes.current.snapshot, demand, kept);
    client.unsubscribe(addressTypeUrl, [...new Set<string>([...names, ...gone.removedWorkloads, ...gone.removedServices])]);
    if (gone.removedWorkloads.length + gone.removedServices.length > 0) commit(gone, { policiesChanged: false, workloadsChanged: true });
  }
  const view: XdsMeshView = {
    changes,
    get snapshot() {
      return changes.current.snapshot;
    },
    synced: client.synced,
    connection: client.connection,
    decide: (decision, wait) =>
      demand === undefined || onDemand === undefined
        ? decideNow(changes, decision, wait)
        : decideOnDemand({ changes, demand, clusterId: onDemand.clusterId }, decision, wait),
    onRelease(listener) {
      releases.add(listener);
      return { [Symbol.dispose]: () => void releases.delete(listener) };
    },
    demand,
    waitForWorkload: async (pod, wait) => {
      // Asks for it; whether it is known already is the next question.
      if (demand !== undefined) await view.decide((state) => state.workloadByName(pod, nodeName), { signal: wait.signal, labels: true });
      return waitForWorkload({ changes, nodeName, clock }, pod, wait);
    },
    async [Symbol.asyncDispose]() {
      demand?.[Symbol.dispose]();
      await client[Symbol.asyncDispose]();
    },
  };
  return view;
}
