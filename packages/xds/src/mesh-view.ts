/** The live mesh of a proxy: discovery decoded into snapshots. Policies are subscribed before addresses and applied as they come. */
import { applyChange, emptySnapshot, type SnapshotChange } from "@fairway/model";
import { type Clock, type Logger, type Watch, Watched } from "@fairway/runtime";
import { XdsClient, type XdsConnection } from "./client.ts";
import type { ControlPlaneAccess } from "./control-plane-access.ts";
import { decideNow } from "./decide-now.ts";
import { addressSink, policySink } from "./mesh-sinks.ts";
import type { MeshChange, MeshView } from "./mesh-source.ts";
import type { NodeIdentity } from "./node.ts";
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
}

export interface XdsMeshView extends MeshView {
  readonly connection: Watch<XdsConnection>;
}

/** Opens the stream in the background and keeps it; returns at once. */
export function createXdsMeshView(options: XdsMeshViewOptions): XdsMeshView {
  const { access, node, nodeName, clock, log, initial, maxMessageBytes, random } = options;
  const snapshot = initial === undefined ? emptySnapshot : applyChange(emptySnapshot, initial);
  const changes = new Watched<MeshChange>({ snapshot, policiesChanged: true, workloadsChanged: true });
  const commit = (change: SnapshotChange, touched: Omit<MeshChange, "snapshot">): void =>
    changes.set({ snapshot: applyChange(changes.current.snapshot, change), ...touched });
  const client = new XdsClient({
    access,
    node,
    sinks: [policySink(changes, commit), addressSink(changes, commit)],
    clock,
    log,
    ...(maxMessageBytes === undefined ? {} : { maxMessageBytes }),
    ...(random === undefined ? {} : { random }),
  });
  return {
    changes,
    get snapshot() {
      return changes.current.snapshot;
    },
    synced: client.synced,
    connection: client.connection,
    decide: (decision, wait) => decideNow(changes, decision, wait),
    waitForWorkload: (pod, wait) => waitForWorkload({ changes, nodeName, clock }, pod, wait),
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  };
}
