/** A waypoint between a client's tunnel and workloads' tunnels, all real, on loopback addresses of their own; the configuration is in memory. */
import { once } from "node:events";
import { request as httpRequest, type IncomingHttpHeaders, type RequestOptions } from "node:http";
import { createServer, type Server, type Socket, connect as tcpConnect } from "node:net";
import type { Duplex } from "node:stream";
import {
  defaultClientSettings,
  defaultEngineName,
  defaultServerSettings,
  parseAuthority,
  type ServerTunnel,
  type TunnelStream,
  tunnelEngine,
} from "@fairway/hbone";
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
  parseSpiffeId,
  type ServedPort,
  type ServedTarget,
  type SnapshotChange,
  type SpiffeId,
  spiffeId,
  unlimited,
  type WaypointConfig,
  type Workload,
  type WorkloadUid,
} from "@fairway/model";
import { Authority, createMeshTls, localCaClient, SecretManager } from "@fairway/pki";
import { createLogger, LogFilter, systemClock, Watched } from "@fairway/runtime";
import type { MeshChange } from "@fairway/xds";
import type { ExecutionContext } from "ava";
import type { ProxyConfig } from "./config.ts";
import { defaultHttpLimits } from "./http-connection.ts";
import type { ProxyTelemetry } from "./telemetry.ts";
import { testCodecs } from "./test-codecs.ts";
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
    connectTimeoutMs: 1_000,
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

export const waypointIdentity: SpiffeId = spiffeId({ trustDomain: "cluster.local", namespace: "default", serviceAccount: "waypoint" });

export interface TestWaypointOptions {
  readonly ip: string;
  readonly config: WaypointConfig;
  readonly mesh: SnapshotChange;
  readonly proxy?: Partial<ProxyConfig>;
  readonly parts?: Partial<WaypointProxyParts>;
  readonly authority?: Authority;
}

const patienceMs = 2_000;
/** The port of every tunnel here: not the real one, which tests of others may hold. */
const tunnelPort = 15_008;

export class TestWaypoint {
  readonly authority: Authority;
  readonly config: Watched<WaypointConfig>;
  readonly synced: Watched<boolean> = new Watched(true);
  readonly mesh: Watched<MeshChange>;
  readonly lines: string[] = [];
  readonly proxy: WaypointProxy;
  readonly #t: ExecutionContext;
  readonly #ip: string;
  readonly #certificates: SecretManager;

  private constructor(t: ExecutionContext, { ip, config, mesh, proxy = {}, parts = {}, authority }: TestWaypointOptions) {
    this.#t = t;
    this.#ip = ip;
    this.authority = authority ?? Authority.createSelfSigned({ trustDomain: "cluster.local", clock: systemClock });
    this.config = new Watched(config);
    const snapshot = applyChange(emptySnapshot, mesh);
    this.mesh = new Watched<MeshChange>({ snapshot, policiesChanged: true, workloadsChanged: true });
    const meshChanges = this.mesh;
    const log = createLogger("test", { write: (line) => void this.lines.push(line), filter: new LogFilter("debug") });
    this.#certificates = new SecretManager({ ca: localCaClient(this.authority), clock: systemClock, log });
    this.proxy = new WaypointProxy({
      config: { ...testProxyConfig, listen: { host: ip, port: tunnelPort, reusePort: false }, ...proxy },
      waypoint: { config: this.config, synced: this.synced },
      mesh: {
        changes: meshChanges,
        get snapshot() {
          return meshChanges.current.snapshot;
        },
      },
      certificates: this.#certificates,
      tls: createMeshTls({ clock: systemClock, handshakeTimeoutMs: patienceMs }),
      codecs: testCodecs,
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
      await waypoint.#certificates[Symbol.asyncDispose]();
    });
    return waypoint;
  }

  applyMesh(change: SnapshotChange): void {
    this.mesh.set({ snapshot: applyChange(this.mesh.current.snapshot, change), policiesChanged: false, workloadsChanged: true });
  }

  /** A stream through the waypoint, as the ztunnel of pod `name` opens it. Throws HBONE_REFUSED. */
  async connect(name: string, authority: string, more: TestRequest["tunnel"] = {}): Promise<TunnelStream> {
    const identity = parseSpiffeId(`spiffe://cluster.local/ns/default/sa/${name}`);
    const signal = new AbortController().signal;
    const certificate = await this.#certificates.fetch(identity, { signal });
    const raw = tcpConnect({ host: this.#ip, port: tunnelPort });
    raw.on("error", () => undefined);
    await once(raw, "connect");
    this.#t.teardown(() => raw.destroy());
    const { socket } = await createMeshTls({ clock: systemClock }).connect(raw, certificate, [waypointIdentity], { signal });
    const tunnel = await tunnelEngine(defaultEngineName).connect(socket, defaultClientSettings, { signal });
    this.#t.teardown(() => tunnel.destroy());
    const { stream } = await tunnel.open({ authority, ...more }, { signal });
    return stream;
  }

  /** One HTTP/1.1 request of pod `name`. */
  async request(name: string, authority: string, path: string, options: TestRequest = {}): Promise<TestAnswer> {
    const stream = await this.connect(name, authority, options.tunnel);
    return exchangeOver(stream.duplex(), path, options);
  }

  /** The ztunnel of pod `name` at `ip`: takes tunnels from the waypoint and hands their streams to `application`. */
  async workload(name: string, ip: string, app: { port: number }, identity: string = name): Promise<{ readonly peers: string[] }> {
    const peers: string[] = [];
    const own = parseSpiffeId(`spiffe://cluster.local/ns/default/sa/${identity}`);
    const signal = new AbortController().signal;
    const certificate = await this.#certificates.fetch(own, { signal });
    const tls = createMeshTls({ clock: systemClock });
    const tunnels = new Set<ServerTunnel>();
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on("error", () => undefined);
      tls
        .accept(socket, certificate, { signal })
        .then(({ socket: proven, peer }) => {
          peers.push(peer);
          const tunnel = tunnelEngine(defaultEngineName).serve(proven, defaultServerSettings, (exchange) => {
            const to = parseAuthority(exchange.request.authority);
            if (to?.kind !== "address") return exchange.reject(400);
            const upstream = tcpConnect({ host: ip, port: app.port, allowHalfOpen: true });
            upstream.once("error", () => exchange.reject(503));
            upstream.once("connect", () => void exchange.accept({}).pipe(upstream, { signal }));
          });
          tunnels.add(tunnel);
        })
        .catch(() => undefined);
    });
    server.listen(tunnelPort, ip);
    await once(server, "listening");
    this.#t.teardown(() => {
      server.close();
      for (const tunnel of tunnels) tunnel.destroy();
    });
    return { peers };
  }
}

export interface TestRequest {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly tunnel?: { forwarded?: string; baggage?: string };
}

export interface TestAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export function exchangeOver(transport: Duplex, path: string, { method = "GET", headers = {}, body }: TestRequest): Promise<TestAnswer> {
  return new Promise((resolve, reject) => {
    const options: RequestOptions = { createConnection: () => transport, method, path, headers: { host: "api", ...headers } };
    const request = httpRequest(options, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
      response.on("error", reject);
    });
    request.on("error", reject);
    request.end(body);
  });
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
  for (let turn = 0; turn < 400 && !holds(); turn++) await new Promise((resolve) => setTimeout(resolve, 5));
  t.true(holds(), "it never happened");
}
