/** The whole program in this process, its threads too, with a control plane in memory. */
import { once } from "node:events";
import { createServer } from "node:net";
import { MessageChannel } from "node:worker_threads";
import { applyChange, emptySnapshot, type SnapshotChange, type WaypointConfig } from "@fairway/model";
import { Authority, type CaClient, localCaClient } from "@fairway/pki";
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
import { createLogger, LogFilter, systemClock, type Watch, Watched } from "@fairway/runtime";
import { applyWaypointResources, emptyWaypointState, type MeshChange, type WaypointResources, type WaypointView } from "@fairway/xds";
import type { ExecutionContext } from "ava";
import { runWaypoint } from "./app.ts";
import { createCodecs } from "./codecs.ts";
import type { Config } from "./config.ts";
import { testProxyConfig } from "./test-waypoint.ts";
import type { SpawnThread } from "./traffic-thread.ts";
import { runTrafficWorker } from "./traffic-worker.ts";

/** A waypoint's control plane that says what a test tells it to. */
export class MemoryView implements WaypointView {
  readonly changes: Watched<WaypointConfig> = new Watched<WaypointConfig>(emptyWaypointState.config);
  readonly synced: Watched<boolean> = new Watched(false);
  readonly connection: WaypointView["connection"] = new Watched<WaypointView["connection"]["current"]>({
    kind: "connected",
  } as WaypointView["connection"]["current"]);
  readonly mesh: WaypointView["mesh"];
  readonly #snapshots: Watched<MeshChange>;
  readonly #listeners = new Set<(change: WaypointResources) => void>();
  #said: WaypointResources[] = [];
  #state = emptyWaypointState;

  constructor(change: SnapshotChange) {
    const snapshots = new Watched<MeshChange>({ snapshot: applyChange(emptySnapshot, change), policiesChanged: true, workloadsChanged: true });
    this.#snapshots = snapshots;
    const changes: Watch<MeshChange> = snapshots;
    this.mesh = {
      changes,
      get snapshot() {
        return snapshots.current.snapshot;
      },
      synced: this.synced,
      decide: async (decision) => decision(snapshots.current.snapshot),
      waitForWorkload: () => Promise.reject(new Error("not asked here")),
      [Symbol.asyncDispose]: async () => undefined,
    };
  }

  /** Everything of `config`, as the control plane would send it. */
  say(config: WaypointConfig): void {
    const all: WaypointResources[] = [
      { typeUrl: clusterTypeUrl, resources: [...config.clusters].map(([name, value]) => ({ name, body: encodeCluster(value) })), removed: [] },
      { typeUrl: endpointTypeUrl, resources: [...config.endpoints].map(([name, value]) => ({ name, body: encodeEndpoints(value) })), removed: [] },
      { typeUrl: listenerTypeUrl, resources: [...config.targets].map(([name, value]) => ({ name, body: encodeTarget(value) })), removed: [] },
      { typeUrl: routeTypeUrl, resources: [...config.routeTables].map(([name, value]) => ({ name, body: encodeRouteTable(value) })), removed: [] },
    ];
    for (const change of all) {
      const { state, rejected } = applyWaypointResources(this.#state, change);
      if (rejected.size > 0) throw new Error(JSON.stringify([...rejected]));
      this.#state = state;
      this.#said.push(change);
      for (const listener of this.#listeners) listener(change);
    }
    this.changes.set(this.#state.config);
    this.synced.set(true);
  }

  applyMesh(change: SnapshotChange): void {
    this.#snapshots.set({ snapshot: applyChange(this.#snapshots.current.snapshot, change), policiesChanged: false, workloadsChanged: true });
  }

  follow(listener: (change: WaypointResources) => void): Disposable {
    for (const change of this.#said) listener(change);
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

export interface TestProgram {
  readonly view: MemoryView;
  readonly authority: Authority;
  readonly config: Config;
  readonly lines: string[];
  /** SIGTERM; resolves when the program ended. */
  stop(): Promise<void>;
  readonly ended: Promise<void>;
}

export async function startProgram(
  t: ExecutionContext,
  given: { ip: string; mesh: SnapshotChange; over?: Partial<Config>; ca?: (own: CaClient) => CaClient; spawn?: SpawnThread },
): Promise<TestProgram> {
  const { ip, mesh, over = {}, ca = (own: CaClient) => own, spawn = spawnHere } = given;
  const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock: systemClock });
  const view = new MemoryView(mesh);
  const [admin, metrics, readiness] = await Promise.all([freePort(), freePort(), freePort()]);
  const config: Config = {
    proxy: { ...testProxyConfig, listen: { host: ip, port: 15_008, reusePort: true } },
    ports: { hbone: 15_008, admin, metrics, readiness },
    xds: { address: "", roots: { kind: "system" }, altHostname: undefined, headers: new Map() },
    ca: { address: "", roots: { kind: "system" }, altHostname: undefined, headers: new Map(), certificateTtlMs: 3_600_000 },
    token: { kind: "none" },
    node: { id: "", metadata: {} },
    trustDomain: "cluster.local",
    ipv6: false,
    drainDeadlineMs: 20_000,
    workerThreads: 2,
    logFilter: "info",
    logFormat: "plain",
    meshVersion: "test",
    ...over,
  };
  const lines: string[] = [];
  const logFilter = new LogFilter("info");
  const write = (text: string): void => void lines.push(...text.trimEnd().split("\n"));
  const stopping = new AbortController();
  const ended = runWaypoint({
    config,
    log: createLogger("waypoint", { write, filter: logFilter }),
    logFilter,
    write,
    stop: stopping.signal,
    seams: {
      clock: systemClock,
      openWaypoint: () => view,
      openCa: () => ca(localCaClient(authority)),
      spawnThread: spawn,
    },
  });
  ended.catch(() => undefined);
  const stop = (): Promise<void> => {
    stopping.abort();
    return ended;
  };
  t.teardown(() => stop().catch(() => undefined));
  return { view, authority, config, lines, stop, ended };
}

/** A thread that is none: the same code and messages, in this thread. */
const spawnHere: SpawnThread = (settings) => {
  const { port1, port2 } = new MessageChannel();
  const worker = runTrafficWorker({ port: port2, settings, clock: systemClock, codecs: createCodecs(systemClock) });
  return { port: port1, died: new Promise(() => undefined), end: async () => worker[Symbol.asyncDispose]() };
};

/** Below what the kernel gives away, where a port that was found free may be anybody's a moment later; apart from those of other test processes. */
const portsEach = 40;
let nextPort = 30_000 + (process.pid % 64) * portsEach;
const lastPort = nextPort + portsEach;

async function freePort(): Promise<number> {
  while (nextPort < lastPort) {
    const port = nextPort++;
    const server = createServer().listen(port, "127.0.0.1");
    const listens = await once(server, "listening").then(
      () => true,
      () => false,
    );
    if (!listens) continue;
    server.close();
    await once(server, "close");
    return port;
  }
  throw new Error("this process has used all of its ports");
}
