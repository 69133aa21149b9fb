/** Our waypoint as the bench's proxy: one traffic thread as the program runs it, with metrics and access log, told what to serve as the main thread tells it. */
import { createWriteStream } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { defaultEngineName } from "@fairway/hbone";
import {
  type Cluster,
  type ClusterEndpoints,
  networkId,
  noHeaderChanges,
  parseIp,
  type RouteTable,
  type ServedTarget,
  type SpiffeId,
  tryParseSpiffeId,
  unlimited,
  type Workload,
  type WorkloadUid,
} from "@fairway/model";
import { type AuthorityPem, detachCertificate } from "@fairway/pki";
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
import { systemClock } from "@fairway/runtime";
import { boundYoungObjects, createCodecs, defaultHttpLimits, holdThread, type ProxyConfig, runTrafficWorker, type TrafficThread } from "@fairway/waypoint";
import { serveParent } from "../child.ts";
import { certificateOf, clientIdentity, serverIdentity, waypointIdentity } from "../identities.ts";
import { service } from "./measures.ts";

const uid = "Kubernetes//Pod/bench/app" as WorkloadUid;
const clusterOf = (port: number): string => `inbound-vip|${port}|http|${service.hostname}`;

boundYoungObjects();

serveParent(async ({ authority, tunnelPort }: { authority: AuthorityPem; tunnelPort: number }): Promise<{ port: number }> => {
  const { port1, port2 } = new MessageChannel();
  const config: ProxyConfig = {
    identity: waypointIdentity,
    gateway: "bench/waypoint",
    namespace: "bench",
    network: networkId(""),
    clusterId: "Kubernetes",
    listen: { host: "127.0.0.1", port: 0, reusePort: false },
    workloadPort: tunnelPort,
    ownAddresses: [],
    trustedGateways: [],
    trustedHops: 0,
    pathNormalization: "base",
    httpLimits: { ...defaultHttpLimits, maxConcurrentStreams: 256 },
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
  const settings = { thread: 1, config, logFormat: "plain", logFilter: "warn" } as const;
  runTrafficWorker({ port: port2, settings, clock: systemClock, codecs: createCodecs(systemClock) });
  const log = createWriteStream("/dev/null");
  const thread: TrafficThread = holdThread({
    spawned: { port: port1, died: new Promise(() => {}), end: async () => port2.close() },
    number: 1,
    clock: systemClock,
    onSpeech: ({ text }) => log.write(text, () => thread.tell({ kind: "lines-written" })),
  });
  const send = (typeUrl: string, resources: readonly (readonly [name: string, body: Uint8Array])[]): void =>
    thread.tell({ kind: "resources", change: { typeUrl, resources: resources.map(([name, body]) => ({ name, body })) as never, removed: [] } });
  const ports = [service.port, service.grpcPort];
  send(
    clusterTypeUrl,
    ports.map((port) => [clusterOf(port), encodeCluster(clusterFor(port))]),
  );
  send(
    endpointTypeUrl,
    ports.map((port) => [clusterOf(port), encodeEndpoints(endpointsFor(port))]),
  );
  send(listenerTypeUrl, [[target.name, encodeTarget(target)]]);
  send(
    routeTypeUrl,
    ports.map((port) => [clusterOf(port), encodeRouteTable(routesFor(port))]),
  );
  thread.tell({ kind: "mesh", change: { workloads: [app, caller] } });
  thread.tell({ kind: "certificate", parts: detachCertificate(await certificateOf(authority, waypointIdentity)) });
  thread.tell({ kind: "synced", synced: true });
  return { port: await thread.call("listen", undefined) };
});

const allowed = { kind: "principal", match: { kind: "prefix", value: "spiffe://cluster.local/ns/bench/" } } as const;
const target: ServedTarget = {
  name: `service/bench/${service.hostname}`,
  kind: "service",
  namespace: "bench",
  hostname: service.hostname,
  addresses: [parseIp(service.vip)],
  ports: [service.port, service.grpcPort].map((port) => ({
    port,
    protocol: "http",
    routes: clusterOf(port),
    tcpBackends: [],
    policies: [{ namespace: "bench", name: "callers", action: "allow", dryRun: false, rules: [allowed] }],
    tokens: [],
  })),
  anyPort: undefined,
};

function clusterFor(port: number): Cluster {
  return {
    name: clusterOf(port),
    service: { namespace: "bench", hostname: service.hostname, port },
    protocol: "same",
    connectTimeoutMs: 5_000,
    loadBalancing: "least-request",
    limits: unlimited,
    ejection: undefined,
  };
}

function endpointsFor(port: number): ClusterEndpoints {
  const endpoint = { address: { ip: parseIp("127.0.0.1"), port }, tunnel: "hbone", workload: uid, health: "healthy", weight: 1 } as const;
  return { cluster: clusterOf(port), localities: [{ locality: { region: "", zone: "", subzone: "" }, priority: 0, weight: 1, endpoints: [endpoint] }] };
}

function routesFor(port: number): RouteTable {
  const name = clusterOf(port);
  const backends = [{ cluster: name, weight: 1, requestHeaders: noHeaderChanges, responseHeaders: noHeaderChanges }];
  const match = { path: { kind: "path-prefix", value: "/" }, method: undefined, headers: [], query: [], grpc: false } as const;
  const action = { kind: "forward", backends, timeoutMs: undefined, retry: undefined, rewrite: undefined, mirrors: [] } as const;
  return {
    name,
    virtualHosts: [
      { name: "all", domains: ["*"], routes: [{ name: "default", match, action, requestHeaders: noHeaderChanges, responseHeaders: noHeaderChanges }] },
    ],
  };
}

function workloadOf(name: string, id: WorkloadUid, identity: SpiffeId, ip: string): Workload {
  const { trustDomain, namespace, serviceAccount } = tryParseSpiffeId(identity) ?? { trustDomain: "", namespace: "", serviceAccount: "" };
  return {
    uid: id,
    name,
    namespace,
    addresses: [parseIp(ip)],
    hostname: "",
    network: networkId(""),
    networkMode: "standard",
    networkGateway: undefined,
    tunnelProtocol: "hbone",
    nativeTunnel: false,
    applicationTunnel: undefined,
    trustDomain,
    serviceAccount,
    waypoint: undefined,
    node: "node",
    workloadName: name,
    workloadType: "deployment",
    canonicalName: name,
    canonicalRevision: "latest",
    clusterId: "Kubernetes",
    locality: undefined,
    status: "healthy",
    services: new Map(),
    authorizationPolicies: [],
    capacity: 1,
  };
}

const app = workloadOf("app", uid, serverIdentity, "127.0.0.1");
const caller = workloadOf("client", "Kubernetes//Pod/bench/client" as WorkloadUid, clientIdentity, "127.0.0.2");
