/** Every variable of ztunnel contract 2.2, one row each: what it changes. */
import { silentLogger } from "@fairway/runtime";
import test from "ava";
import type { Config } from "./config.ts";
import { readConfig, type Surroundings } from "./environment.ts";
import { podKinds, warnOfRisks } from "./offered.ts";
import { capturedPod } from "./pod-proxy.ts";

const ipv6Switch = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
const files: Readonly<Record<string, string>> = { [ipv6Switch]: "0", "/token": "t", "/etc/resolv.conf": "nameserver 10.0.0.10\nsearch a.example" };
const machine: Surroundings = { exists: (path) => path in files, read: (path) => files[path] ?? "", cores: 8 };

type Read = (config: Config) => unknown;
type Row = readonly [name: string, value: string, read: Read, expected: unknown, others?: Readonly<Record<string, string>>];

const works: readonly Row[] = [
  ["PROXY_MODE", "dedicated", ({ mode }) => mode.kind, "dedicated", { PROXY_WORKLOAD_INFO: "ns/name/sa" }],
  [
    "PROXY_WORKLOAD_INFO",
    "ns/name/sa",
    ({ mode }) => mode,
    { kind: "dedicated", pod: { namespace: "ns", name: "name", serviceAccount: "sa" } },
    { PROXY_MODE: "dedicated" },
  ],
  ["ENABLE_PROXY", "false", podKinds, ["dns"]],
  ["NETWORK", "east", ({ proxy }) => proxy.network, "east"],
  ["NODE_NAME", "node-1", ({ proxy }) => proxy.nodeName, "node-1"],
  ["CLUSTER_ID", "one", ({ proxy }) => proxy.clusterId, "one"],
  ["ISTIO_META_CLUSTER_ID", "two", ({ proxy }) => proxy.clusterId, "two", { CLUSTER_ID: "one" }],
  ["CLUSTER_DOMAIN", "example.local", ({ proxy }) => proxy.dns?.clusterDomain, "example.local"],
  ["XDS_ADDRESS", "", ({ xds }) => xds.address, undefined],
  ["CA_ADDRESS", "ca.example:1", ({ ca }) => ca.address, "https://ca.example:1"],
  ["XDS_ROOT_CA", "SYSTEM", ({ xds }) => xds.roots, { kind: "system" }],
  ["CA_ROOT_CA", "/roots.pem", ({ ca }) => ca.roots, { kind: "file", path: "/roots.pem" }],
  ["ALT_XDS_HOSTNAME", "other", ({ xds }) => xds.altHostname, "other"],
  ["ALT_CA_HOSTNAME", "other", ({ ca }) => ca.altHostname, "other"],
  ["AUTH_TOKEN", "/token", ({ token }) => token, { kind: "file", path: "/token" }],
  ["XDS_HEADER_x-a", "1", ({ xds }) => xds.headers.get("x-a"), "1"],
  ["CA_HEADER_x-b", "2", ({ ca }) => ca.headers.get("x-b"), "2"],
  ["XDS_ON_DEMAND", "true", ({ proxy }) => proxy.onDemand, true, { ISTIO_META_DNS_CAPTURE: "false" }],
  ["LOCAL_XDS_PATH", "/mesh.yaml", ({ xds }) => xds.local, { kind: "file", path: "/mesh.yaml" }],
  ["LOCAL_XDS", "{}", ({ xds }) => xds.local, { kind: "inline", yaml: "{}" }],
  ["FAKE_CA", "true", ({ ca }) => ca.fake, true],
  ["SECRET_TTL", "2h", ({ ca }) => ca.certificateTtlMs, 7_200_000],
  ["PREFERED_SERVICE_NAMESPACE", "shop", ({ proxy }) => proxy.dns?.preferredNamespace, "shop"],
  ["INPOD_UDS", "/zds.sock", ({ mode }) => mode, { kind: "shared", zdsSocket: "/zds.sock" }],
  ["INPOD_PORT_REUSE", "false", ({ proxy }) => proxy.reusePort, false],
  ["PACKET_MARK", "7", ({ proxy }) => proxy.mark, 7],
  ["ENABLE_ORIG_SRC", "true", ({ proxy }) => proxy.keepSource, "required"],
  ["KEEPALIVE_ENABLED", "false", ({ proxy }) => proxy.keepalive, undefined],
  ["KEEPALIVE_TIME", "10s", ({ proxy }) => proxy.keepalive?.timeMs, 10_000],
  ["KEEPALIVE_INTERVAL", "20s", ({ proxy }) => proxy.keepalive?.intervalMs, 20_000],
  ["KEEPALIVE_RETRIES", "3", ({ proxy }) => proxy.keepalive?.retries, 3],
  ["USER_TIMEOUT_ENABLED", "true", ({ proxy }) => proxy.keepalive?.userTimeoutMs, 180_000 + 9 * 180_000],
  ["POOL_MAX_STREAMS_PER_CONNECTION", "5", ({ proxy }) => proxy.maxStreamsPerTunnel, 5],
  ["POOL_UNUSED_RELEASE_TIMEOUT", "1m", ({ proxy }) => proxy.tunnelIdleMs, 60_000],
  ["HTTP2_STREAM_WINDOW_SIZE", "65535", ({ proxy }) => proxy.streamWindow, 65_535],
  ["HTTP2_CONNECTION_WINDOW_SIZE", "131070", ({ proxy }) => proxy.connectionWindow, 131_070],
  ["HTTP2_FRAME_SIZE", "16384", ({ proxy }) => proxy.frameSize, 16_384],
  ["CONNECTION_TERMINATION_DEADLINE", "9s", ({ drainDeadlineMs }) => drainDeadlineMs, 9_000],
  ["TERMINATION_GRACE_PERIOD_SECONDS", "30", ({ drainDeadlineMs }) => drainDeadlineMs, 25_000],
  ["IPV6_ENABLED", "false", ({ proxy }) => proxy.listenHost, "0.0.0.0"],
  ["LOCALHOST_APP_TUNNEL", "false", ({ proxy }) => proxy.localhostAppTunnel, false],
  ["ENABLE_RESPONSE_BAGGAGE", "false", ({ proxy }) => proxy.baggage, false],
  ["AUTHZ_POLICY_INFO_LOGGING", "true", ({ proxy }) => proxy.policyDecisionsAtInfo, true],
  ["TLS12_ENABLED", "true", ({ tls12 }) => tls12, true],
  ["CRL_PATH", "/crl", ({ crlPath }) => crlPath, "/crl"],
  ["COMPLIANCE_POLICY", "pqc", ({ postQuantumOnly }) => postQuantumOnly, true],
  ["RUST_LOG", "debug", ({ logFilter }) => logFilter, "debug"],
  ["LOG_FORMAT", "json", (config) => config.logFormat, "json"],
  ["ZTUNNEL_WORKER_THREADS", "50%", ({ workerThreads }) => workerThreads, 4],
  ["ZTUNNEL_CPU_LIMIT", "3", ({ workerThreads }) => workerThreads, 3],
  ["ZTUNNEL_RESOURCE_CPU_LIMIT", "2500m", ({ workerThreads }) => workerThreads, 3],
  ["ZTUNNEL_RESOURCE_CPU_REQUEST", "6", ({ workerThreads }) => workerThreads, 6],
  ["POD_NAME", "zt", ({ self }) => self?.name, "zt", { POD_NAMESPACE: "system", SERVICE_ACCOUNT: "sa" }],
  ["POD_NAMESPACE", "system", ({ rootNamespace }) => rootNamespace, "system"],
  ["SERVICE_ACCOUNT", "sa", ({ self }) => self?.serviceAccount, "sa", { POD_NAME: "zt", POD_NAMESPACE: "system" }],
  ["TRUST_DOMAIN", "td", ({ trustDomain }) => trustDomain, "td"],
  ["INSTANCE_IP", "10.0.0.7", ({ node }) => node.metadata["INSTANCE_IPS"], "10.0.0.7"],
  ["ISTIO_META_ANYTHING", "x", ({ node }) => node.metadata["ANYTHING"], "x"],
  ["ISTIO_METAJSON_LIST", "[1]", ({ node }) => node.metadata["LIST"], [1]],
  ["ISTIO_META_DNS_CAPTURE", "false", ({ proxy }) => proxy.dns, undefined],
  ["ISTIO_META_DNS_PROXY_ADDR", "127.0.0.1:53", ({ proxy }) => proxy.dns?.listen, [{ host: "127.0.0.1", port: 53 }]],
  ["ISTIO_META_ISTIO_VERSION", "1.32", ({ meshVersion }) => meshVersion, "1.32"],
  ["PROXY_CONFIG", "discoveryAddress: d.example:1", ({ xds }) => xds.address, "https://d.example:1"],
  ["PROXY_CONFIG", "{proxyAdminPort: 1, statsPort: 2}", ({ proxy }) => [proxy.ports.admin, proxy.ports.metrics], [1, 2]],
  ["PROXY_CONFIG", "concurrency: 3", ({ workerThreads }) => workerThreads, 3],
  ["PROXY_CONFIG", "proxyMetadata: {ISTIO_META_A: b}", ({ node }) => node.metadata["A"], "b"],
  ["UNSTABLE_ENABLE_SOCKS5", "true", podKinds, [...capturedPod, "socks5"]],
  // Not the contract's.
  ["ENABLE_SOCKS5", "true", podKinds, [...capturedPod, "socks5"]],
  ["ENABLE_HTTP_CONNECT", "true", podKinds, [...capturedPod, "http-connect"]],
  ["EXPLICIT_PROXY_ADDRESS", "::1", ({ proxy }) => proxy.askingHost, "::1"],
  ["LOCAL_CA_PATH", "/ca", ({ ca }) => ca.localPath, "/ca"],
  ["HALF_CLOSED_TIMEOUT", "1m", ({ proxy }) => proxy.halfClosedMs, 60_000],
  ["HBONE_ENGINE", "node-http2", ({ proxy }) => proxy.engine, "node-http2"],
];

for (const [name, value, read, expected, others = {}] of works) {
  test(`${name}=${value} is obeyed`, (t) => {
    const config = readConfig({ ...others, [name]: value }, machine);
    t.notThrows(() => warnOfRisks(config, silentLogger));
    t.deepEqual(read(config), expected);
    t.notDeepEqual(read(readConfig(name in { PROXY_MODE: 1, PROXY_WORKLOAD_INFO: 1 } ? {} : others, machine)), expected, "it is not the default");
  });
}
