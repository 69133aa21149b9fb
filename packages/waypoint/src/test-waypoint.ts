/** A waypoint between a client's tunnel and workloads' tunnels, all real, on loopback addresses of their own; the configuration is in memory. */
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { defaultEngineName } from "@fairway/hbone";
import {
  applyChange,
  type Cluster,
  type Endpoint,
  emptySnapshot,
  type ForwardAction,
  type HttpRoute,
  networkId,
  noHeaderChanges,
  parseIp,
  type ServedPort,
  type ServedTarget,
  type SnapshotChange,
  unlimited,
  type WaypointConfig,
  type Workload,
  type WorkloadUid,
} from "@fairway/model";
import { Authority, createMeshTls, localCaClient, SecretManager } from "@fairway/pki";
import { createLogger, LogFilter, systemClock, Watched } from "@fairway/runtime";
import type { MeshChange } from "@fairway/xds";
import type { ExecutionContext } from "ava";
import { createCodecs } from "./codecs.ts";
import type { ProxyConfig } from "./config.ts";
import { defaultHttpLimits } from "./http-connection.ts";
import type { ProxyTelemetry } from "./telemetry.ts";
import { TestPeers, tunnelPort, waypointIdentity } from "./test-peers.ts";
import { WaypointProxy, type WaypointProxyParts } from "./waypoint-proxy.ts";

/** Loopback addresses that no other test process uses. */
export function loopbackAddresses(): (host: number) => string {
  const block = process.pid % 16_000;
  return (host) => `127.${180 + Math.floor(block / 250)}.${1 + (block % 250)}.${host}`;
}

/** A healthy HBONE pod unless told otherwise. */
export function workload(name: string, ip: string, more: Partial<Workload> = {}): Workload {
  return {
    uid: `Kubernetes//Pod/default/${name}` as WorkloadUid,
    name,
    namespace: "default",
    addresses: [parseIp(ip)],
    hostname: "",
    network: networkId(""),
    networkMode: "standard",
    networkGateway: undefined,
    tunnelProtocol: "hbone",
    nativeTunnel: false,
    applicationTunnel: undefined,
    trustDomain: "cluster.local",
    serviceAccount: name,
    waypoint: undefined,
    node: "node",
    workloadName: name,
    workloadType: "deployment",
    canonicalName: name,
    canonicalRevision: "v1",
    clusterId: "Kubernetes",
    locality: undefined,
    status: "healthy",
    services: new Map(),
    authorizationPolicies: [],
    capacity: 1,
    ...more,
  };
}

export function endpoint(name: string, ip: string, port: number, more: Partial<Endpoint> = {}): Endpoint {
  return { address: { ip: parseIp(ip), port }, tunnel: "hbone", workload: `Kubernetes//Pod/default/${name}`, health: "healthy", weight: 1, ...more };
}

export function cluster(name: string, more: Partial<Cluster> = {}): Cluster {
  return {
    name,
    service: { namespace: "default", hostname: "api.default.svc.cluster.local", port: 80 },
    protocol: "same",
    connectTimeoutMs: 10_000,
    loadBalancing: "round-robin",
    limits: unlimited,
    ejection: undefined,
    ...more,
  };
}

export function forwardTo(names: string | readonly string[], more: Partial<ForwardAction> = {}): ForwardAction {
  const backends = (typeof names === "string" ? [names] : names).map((name) => ({
    cluster: name,
    weight: 1,
    requestHeaders: noHeaderChanges,
    responseHeaders: noHeaderChanges,
  }));
  return { kind: "forward", backends, timeoutMs: undefined, retry: undefined, rewrite: undefined, mirrors: [], ...more };
}

export function routeTo(action: HttpRoute["action"], more: Partial<HttpRoute> = {}): HttpRoute {
  return {
    name: "default",
    match: { path: { kind: "prefix", value: "/" }, method: undefined, headers: [], query: [], grpc: false },
    action,
    requestHeaders: noHeaderChanges,
    responseHeaders: noHeaderChanges,
    ...more,
  };
}

export interface ApiOptions {
  readonly vip: string;
  readonly endpoints: readonly Endpoint[];
  readonly routes?: readonly HttpRoute[];
  readonly port?: Partial<ServedPort>;
  readonly cluster?: Partial<Cluster>;
  readonly priorities?: readonly (readonly Endpoint[])[];
}

/** The service `api` at `vip`, port 80, with one route table and one cluster named `api`. */
export function apiConfig({ vip, endpoints, routes = [routeTo(forwardTo("api"))], port = {}, cluster: more = {}, priorities }: ApiOptions): WaypointConfig {
  const served: ServedPort = { port: 80, protocol: "http", routes: "api-routes", tcpBackends: [], policies: [], tokens: [], ...port };
  const target: ServedTarget = {
    name: "service/default/api.default.svc.cluster.local",
    kind: "service",
    namespace: "default",
    hostname: "api.default.svc.cluster.local",
    addresses: [parseIp(vip)],
    ports: [served],
    anyPort: undefined,
  };
  const localities = (priorities ?? [endpoints]).map((group, priority) => ({
    locality: { region: "", zone: `${priority}`, subzone: "" },
    priority,
    weight: Math.max(1, group.length),
    endpoints: group,
  }));
  return {
    targets: new Map([[target.name, target]]),
    routeTables: new Map([["api-routes", { name: "api-routes", virtualHosts: [{ name: "all", domains: ["*"], routes }] }]]),
    clusters: new Map([["api", cluster("api", more)]]),
    endpoints: new Map([["api", { cluster: "api", localities }]]),
  };
}

export interface TestWaypointOptions {
  readonly ip: string;
  readonly config: WaypointConfig;
  readonly mesh: SnapshotChange;
  readonly proxy?: Partial<ProxyConfig>;
  readonly parts?: Partial<WaypointProxyParts>;
  readonly authority?: Authority;
}

const handshakeTimeoutMs = 10_000;
/** Long enough for a machine with much else to do; reached only by a test that fails. */
const eventuallyMs = 30_000;

export class TestWaypoint extends TestPeers {
  readonly authority: Authority;
  readonly config: Watched<WaypointConfig>;
  readonly synced: Watched<boolean> = new Watched(true);
  readonly mesh: Watched<MeshChange>;
  readonly lines: string[] = [];
  readonly proxy: WaypointProxy;
  readonly #own: SecretManager;

  private constructor(t: ExecutionContext, { ip, config, mesh, proxy = {}, parts = {}, authority }: TestWaypointOptions) {
    const signer = authority ?? Authority.createSelfSigned({ trustDomain: "cluster.local", clock: systemClock });
    super(t, signer, ip);
    this.authority = signer;
    this.config = new Watched(config);
    const snapshot = applyChange(emptySnapshot, mesh);
    this.mesh = new Watched<MeshChange>({ snapshot, policiesChanged: true, workloadsChanged: true });
    const meshChanges = this.mesh;
    const log = createLogger("test", { write: (line) => void this.lines.push(line), filter: new LogFilter("debug") });
    this.#own = new SecretManager({ ca: localCaClient(this.authority), clock: systemClock, log });
    this.proxy = new WaypointProxy({
      config: { ...testProxyConfig, listen: { host: ip, port: tunnelPort, reusePort: false }, ...proxy },
      waypoint: { config: this.config, synced: this.synced },
      mesh: {
        changes: meshChanges,
        get snapshot() {
          return meshChanges.current.snapshot;
        },
      },
      certificates: this.#own,
      tls: createMeshTls({ clock: systemClock, handshakeTimeoutMs }),
      codecs: createCodecs(systemClock),
      telemetry: silentTelemetry(),
      tracer: { start: () => undefined },
      tokens: { verify: async (_, head) => ({ claims: undefined, head }) },
      tunnelMetrics: undefined,
      clock: systemClock,
      log,
      random: Math.random,
      ...parts,
    });
  }

  static async start(t: ExecutionContext, options: TestWaypointOptions): Promise<TestWaypoint> {
    const waypoint = new TestWaypoint(t, options);
    await waypoint.proxy.listen();
    t.teardown(async () => {
      await waypoint.proxy[Symbol.asyncDispose]();
      await waypoint.#own[Symbol.asyncDispose]();
    });
    return waypoint;
  }

  applyMesh(change: SnapshotChange): void {
    this.mesh.set({ snapshot: applyChange(this.mesh.current.snapshot, change), policiesChanged: false, workloadsChanged: true });
  }
}

export const testProxyConfig: ProxyConfig = {
  identity: waypointIdentity,
  gateway: "default/waypoint",
  namespace: "default",
  network: networkId(""),
  clusterId: "Kubernetes",
  listen: { host: "127.0.0.1", port: tunnelPort, reusePort: false },
  workloadPort: tunnelPort,
  ownAddresses: [],
  trustedGateways: [],
  trustedHops: 0,
  pathNormalization: "base",
  httpLimits: defaultHttpLimits,
  tunnelIdleMs: 60_000,
  maxStreamsPerTunnel: 100,
  replayBytes: 65_536,
  tcpIdleMs: 3_600_000,
  halfClosedMs: 60_000,
  maxPendingHandshakes: 1_024,
  maxTunnels: 10_000,
  engine: defaultEngineName,
  accessLog: "text",
  tracing: { endpoint: undefined, headers: {}, ratio: 0, parentBased: true, serviceName: "waypoint" },
};

/** Says nothing to nobody. */
export function silentTelemetry(): ProxyTelemetry {
  const nothing = (): void => undefined;
  return {
    over: nothing,
    retried: nothing,
    mirrorDropped: nothing,
    opened: () => ({ cluster: undefined, upstream: undefined, workload: undefined, moved: 0, bytes: nothing, close: nothing }),
    refused: nothing,
    malformed: nothing,
    observed: nothing,
    overflowed: nothing,
    ejected: nothing,
    overloaded: nothing,
  };
}

/** An application that serves each connection with `serve`; closed with the test. */
export async function application(t: ExecutionContext, host: string, serve: (socket: Socket) => void): Promise<{ port: number; server: Server }> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.once("close", () => sockets.delete(socket));
    serve(socket);
  });
  server.listen(0, host);
  await once(server, "listening");
  t.teardown(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  const address = server.address();
  return { port: typeof address === "object" && address !== null ? address.port : 0, server };
}

/** For what happens without a word to the test; a bounded wait, never a fixed one. */
export async function eventually(t: ExecutionContext, holds: () => boolean): Promise<void> {
  const deadline = performance.now() + eventuallyMs;
  while (!holds() && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5));
  t.true(holds(), "it never happened");
}
