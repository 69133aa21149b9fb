/** A mesh for tests: real pods' proxies on loopback addresses of their own, a mesh view in memory, a CA in this process. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { createHboneMetrics, defaultEngineName, tunnelEngine } from "@fairway/hbone";
import { hostPodNetwork, type PodNetwork } from "@fairway/linux";
import {
  type AuthorizationPolicy,
  applyChange,
  emptyMatch,
  emptySnapshot,
  networkId,
  type PolicyMatch,
  parseIp,
  type Service,
  type Snapshot,
  type SnapshotChange,
  serviceKey,
  type Workload,
  type WorkloadUid,
} from "@fairway/model";
import { Authority, type CaClient, createMeshTls, localCaClient, SecretManager } from "@fairway/pki";
import { type Clock, createLogger, createRegistry, LogFilter, type MetricRegistry, systemClock, type Watch, Watched } from "@fairway/runtime";
import type { MeshChange, MeshView } from "@fairway/xds";
import type { ExecutionContext } from "ava";
import { AccessLog } from "./access-log.ts";
import type { DnsConfig, PodName, ProxyConfig } from "./config.ts";
import { IdleTunnels } from "./idle-tunnels.ts";
import { answerName } from "./mesh-names.ts";
import { createZtunnelMetrics } from "./metrics.ts";
import { systemLookup } from "./next-hop.ts";
import { capturedPod, type ListenerKind, PodProxy, type PodProxyParts } from "./pod-proxy.ts";

/** Five seconds of waiting in production; nobody waits that long here. */
const patienceMs = 500;

/** Long enough for a machine with much else to do; reached only by a test that fails. */
const eventuallyMs = 30_000;

/** A mesh view that changes when told to. */
export class MemoryMesh implements MeshView {
  readonly #changes: Watched<MeshChange>;
  readonly #synced: Watched<boolean>;
  /** What keeps the facts of every decision away. */
  withheld: Error | undefined;

  constructor(change: SnapshotChange = {}, synced = true) {
    this.#changes = new Watched({ snapshot: applyChange(emptySnapshot, change), policiesChanged: true, workloadsChanged: true });
    this.#synced = new Watched(synced);
  }

  get changes(): Watch<MeshChange> {
    return this.#changes;
  }

  get synced(): Watch<boolean> {
    return this.#synced;
  }

  get snapshot(): Snapshot {
    return this.#changes.current.snapshot;
  }

  sync(): void {
    this.#synced.set(true);
  }

  apply(change: SnapshotChange): void {
    this.#changes.set({
      snapshot: applyChange(this.snapshot, change),
      policiesChanged: change.policies !== undefined || change.removedPolicies !== undefined,
      workloadsChanged: [change.workloads, change.removedWorkloads, change.services, change.removedServices].some((part) => part !== undefined),
    });
  }

  async decide<T>(decision: (snapshot: Snapshot) => T, { signal }: { signal: AbortSignal }): Promise<T> {
    signal.throwIfAborted();
    if (this.withheld !== undefined) throw this.withheld;
    return decision(this.snapshot);
  }

  async waitForWorkload(pod: PodName, { signal, timeoutMs }: { signal: AbortSignal; timeoutMs: number }): Promise<Workload> {
    const found = (): Workload | undefined => this.snapshot.workloadByName(pod, undefined);
    if (found() === undefined)
      await this.#changes.until(() => found() !== undefined, { signal: AbortSignal.any([signal, AbortSignal.timeout(Math.min(timeoutMs, patienceMs))]) });
    const workload = found();
    if (workload === undefined) throw new Error("unknown workload");
    return workload;
  }

  async [Symbol.asyncDispose](): Promise<void> {}
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

/** A public service in front of `endpoints`, and the endpoints as members of it. */
export function service(
  name: string,
  vip: string,
  port: number,
  targetPort: number,
  endpoints: readonly Workload[],
): { service: Service; workloads: Workload[] } {
  const hostname = `${name}.default.svc.cluster.local`;
  const ports = [{ servicePort: port, targetPort, appProtocol: "unknown" as const }];
  return {
    service: {
      name,
      namespace: "default",
      hostname,
      vips: [{ network: networkId(""), ip: parseIp(vip) }],
      cidrVips: [],
      ports,
      subjectAltNames: [],
      waypoint: undefined,
      weightedWaypoints: [],
      loadBalancing: { routingPreference: [], mode: "unspecified", healthPolicy: "only-healthy" },
      ipFamilies: "automatic",
      canonical: true,
      ingressUseWaypoint: false,
      visibility: "public",
    },
    workloads: endpoints.map((endpoint) => ({ ...endpoint, services: new Map([...endpoint.services, [serviceKey("default", hostname), ports]]) })),
  };
}

/** Loopback addresses that no other test process uses. */
export function loopbackAddresses(): (host: number) => string {
  const block = process.pid % 16_000;
  return (host) => `127.${100 + Math.floor(block / 250)}.${1 + (block % 250)}.${host}`;
}

export const testProxyConfig: ProxyConfig = {
  network: networkId(""),
  nodeName: undefined,
  onDemand: false,
  ports: { outbound: 0, plaintext: 0, hbone: 15_008, socks5: 15_080, httpConnect: 15_081, admin: 0, metrics: 0, readiness: 0 },
  listenHost: "127.0.0.1",
  askingHost: "127.0.0.1",
  mark: 0,
  reusePort: false,
  keepSource: "never",
  keepalive: undefined,
  maxStreamsPerTunnel: 100,
  tunnelIdleMs: 60_000,
  streamWindow: 4_194_304,
  connectionWindow: 16_777_216,
  engine: defaultEngineName,
  frameSize: 1_048_576,
  halfClosedMs: 60_000,
  localhostAppTunnel: true,
  baggage: true,
  clusterId: "Kubernetes",
  policyDecisionsAtInfo: false,
  maxPendingConnections: 8_192,
  maxPendingHandshakes: 1_024,
  maxIdleTunnels: 1_024,
  maxIdleTunnelsOfPeer: 1_024,
  inboundIdleMs: 600_000,
  dns: undefined,
};

/** Short, because some tests wait for it. */
const testHandshakeMs = 5_000;

export interface TestMeshOptions {
  readonly change: SnapshotChange;
  readonly ca?: (own: CaClient) => CaClient;
  readonly config?: Partial<ProxyConfig>;
  readonly clock?: Clock;
  readonly authority?: Authority;
  readonly synced?: boolean;
}

/** One process's worth of parts, and pods made of them. */
export class TestMesh implements AsyncDisposable {
  readonly mesh: MemoryMesh;
  readonly authority: Authority;
  readonly registry: MetricRegistry = createRegistry();
  readonly lines: string[] = [];
  readonly parts: PodProxyParts;
  readonly #certificates: SecretManager;
  readonly #disposables: AsyncDisposable[] = [];

  /** What the pods' DNS proxies are told, for those who answer them. */
  dns: DnsConfig | undefined;

  constructor(t: ExecutionContext, { change, ca = (own) => own, config = {}, clock = systemClock, authority, synced = true }: TestMeshOptions) {
    this.mesh = new MemoryMesh(change, synced);
    this.authority = authority ?? Authority.createSelfSigned({ trustDomain: "cluster.local", clock: systemClock });
    const log = createLogger("test", { write: (line) => void this.lines.push(line), filter: new LogFilter("debug") });
    this.#certificates = new SecretManager({ ca: ca(localCaClient(this.authority)), clock: systemClock, log });
    const metrics = createZtunnelMetrics(this.registry);
    this.parts = {
      config: { ...testProxyConfig, ...config },
      mesh: this.mesh,
      names: { resolve: async (request) => answerName(this.mesh.snapshot, this.dns, request) },
      certificates: this.#certificates,
      tls: createMeshTls({ clock: systemClock, handshakeTimeoutMs: testHandshakeMs }),
      engine: tunnelEngine(defaultEngineName),
      idleTunnels: new IdleTunnels({ clock, limits: { ...testProxyConfig, ...config }, metrics }),
      revocation: undefined,
      tunnelMetrics: createHboneMetrics(this.registry),
      metrics,
      accessLog: new AccessLog(log),
      log,
      clock,
      random: Math.random,
      randomBytes,
      lookup: systemLookup,
    };
    t.teardown(() => this[Symbol.asyncDispose]());
  }

  /** Serves the pod `name` at `ip`; what its applications connect to on the outbound port is meant for `destination()`. */
  async pod(
    name: string,
    ip: string,
    destination: () => { ip: string; port: number } | undefined = () => undefined,
    kinds: readonly ListenerKind[] = capturedPod,
    config: Partial<ProxyConfig> = {},
  ): Promise<PodProxy> {
    return this.podIn(hostPodNetwork({ originalDestination: destination }), name, { listenHost: ip, ...config }, kinds);
  }

  /** Serves the pod `name` in a network of the caller's. */
  async podIn(network: PodNetwork, name: string, config: Partial<ProxyConfig>, kinds: readonly ListenerKind[] = capturedPod): Promise<PodProxy> {
    const parts = { ...this.parts, config: { ...this.parts.config, ...config } };
    this.dns = config.dns;
    const { namespace = "default" } = [...this.mesh.snapshot.workloads()].find((one) => one.name === name) ?? {};
    const pod = { namespace, name, serviceAccount: name };
    const proxy = await PodProxy.start(parts, { uid: `uid-${name}`, pod, network, kinds });
    this.#disposables.push(proxy);
    return proxy;
  }

  /** Lines of the access log, whole. */
  accessLines(): string[] {
    return this.lines.filter((line) => line.split("\t")[2] === "access");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const disposable of this.#disposables.splice(0).reverse()) await disposable[Symbol.asyncDispose]();
    await this.#certificates[Symbol.asyncDispose]();
  }
}

/** An application that serves each connection with `serve`; closed with the test. */
export async function application(t: ExecutionContext, host: string, serve: (socket: Socket) => void, port = 0): Promise<{ port: number; server: Server }> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.once("close", () => sockets.delete(socket));
    serve(socket);
  });
  server.listen(port, host);
  await once(server, "listening");
  t.teardown(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  const address = server.address();
  return { port: typeof address === "object" && address !== null ? address.port : 0, server };
}

/** A client of a port. */
export async function client(t: ExecutionContext, host: string, port: number): Promise<Socket> {
  const socket = connect({ host, port, allowHalfOpen: true });
  socket.on("error", () => {});
  t.teardown(() => socket.destroy());
  await once(socket, "connect");
  return socket;
}

/** Everything until the peer's FIN; rejects when the connection is reset. */
export async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  return new Promise((resolve, reject) => {
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.once("end", () => resolve(Buffer.concat(chunks)));
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("closed without FIN")));
  });
}

/** A namespace-wide policy with one match. */
export function policy(action: "allow" | "deny", match: Partial<PolicyMatch>): AuthorizationPolicy {
  return { name: action, namespace: "default", scope: "namespace", action, rules: [{ clauses: [{ matches: [{ ...emptyMatch, ...match }] }] }], dryRun: false };
}

/** For what happens without a word to the test; a bounded wait, never a fixed one. */
export async function eventually(t: ExecutionContext, holds: () => boolean): Promise<void> {
  const deadline = performance.now() + eventuallyMs;
  while (!holds() && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5));
  t.true(holds(), "it never happened");
}
