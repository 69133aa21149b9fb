/**
 * From environment variables to a Config (ztunnel contract 2.2): each variable's form and default stand here and nowhere else.
 * An empty variable is an unset one, except XDS_ADDRESS and CA_ADDRESS, where "" disables. All problems are named at once.
 */

import { existsSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { defaultEngineName, engineNames } from "@fairway/hbone";
import { networkId, tryParseIp, tryParseSocketAddress } from "@fairway/model";
import { controlPlaneAddress, controlPlaneRoots, controlPlaneToken } from "@fairway/pki";
import { booleanVariable, drainWithin, durationVariable, prefixedVariables, readEnvironment, type Variables, wholeNumberVariable, z } from "@fairway/runtime";
import type { Config, ControlPlane, DnsConfig, Keepalive, PodName } from "./config.ts";
import { type MeshDefaults, meshDefaults } from "./mesh-defaults.ts";
import { parseResolvConf } from "./resolv-conf.ts";

/** Files that defaults depend on; a parameter, so that tests need no such files. */
export interface Surroundings {
  readonly exists: (path: string) => boolean;
  readonly read: (path: string) => string;
  readonly cores: number;
}

const thisMachine: Surroundings = { exists: existsSync, read: (path) => readFileSync(path, "utf8"), cores: availableParallelism() };

const meshConfigFile = "./etc/istio/config/mesh";
const resolverFile = "/etc/resolv.conf";
const defaultClusterDomain = "cluster.local";
const ipv6SwitchFile = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
const hourMs = 3_600_000;
const largestWindow = 2_147_483_647;
const leastWorkers = 2;
const defaultMaxPendingConnections = 8_192;
const defaultMaxPendingHandshakes = 1_024;
/** Of the whole process; the kernel spreads tunnels evenly over its threads. */
const defaultMaxIdleTunnels = 8_192;
const defaultMaxIdleTunnelsOfPeer = 2_048;
/** Twice as long as a client of the defaults keeps a tunnel that it does not use. */
const defaultInboundIdleMs = 600_000;

const text = z.string().optional();
const flag = booleanVariable.optional();
const duration = durationVariable.optional();
const cpus = z
  .string()
  .regex(/^\d+(\.\d+)?m?$/, { error: "expected a CPU quantity such as 2, 0.5 or 500m" })
  .transform((value) => (value.endsWith("m") ? Number(value.slice(0, -1)) / 1000 : Number(value)))
  .optional();

const schema = z
  .object({
    PROXY_MODE: z.enum(["shared", "dedicated"], { error: "expected shared or dedicated" }).default("shared"),
    PROXY_WORKLOAD_INFO: z
      .string()
      .regex(/^[^/]+\/[^/]+\/[^/]+$/, { error: "expected namespace/name/serviceaccount" })
      .optional(),
    ENABLE_PROXY: flag,
    NETWORK: text,
    NODE_NAME: text,
    CLUSTER_ID: text,
    ISTIO_META_CLUSTER_ID: text,
    CLUSTER_DOMAIN: text,
    XDS_ADDRESS: text,
    CA_ADDRESS: text,
    KUBERNETES_SERVICE_HOST: text,
    XDS_ROOT_CA: text,
    CA_ROOT_CA: text,
    ALT_XDS_HOSTNAME: text,
    ALT_CA_HOSTNAME: text,
    AUTH_TOKEN: text,
    XDS_ON_DEMAND: flag,
    LOCAL_XDS_PATH: text,
    LOCAL_XDS: text,
    FAKE_CA: flag,
    LOCAL_CA_PATH: text,
    SECRET_TTL: duration,
    PREFERED_SERVICE_NAMESPACE: text,
    INPOD_UDS: text,
    INPOD_PORT_REUSE: flag,
    PACKET_MARK: wholeNumberVariable(0, 0xffff_ffff),
    ENABLE_ORIG_SRC: flag,
    KEEPALIVE_ENABLED: flag,
    KEEPALIVE_TIME: duration,
    KEEPALIVE_INTERVAL: duration,
    KEEPALIVE_RETRIES: wholeNumberVariable(1, 127),
    USER_TIMEOUT_ENABLED: flag,
    POOL_MAX_STREAMS_PER_CONNECTION: wholeNumberVariable(1, 65_535),
    POOL_UNUSED_RELEASE_TIMEOUT: duration,
    HTTP2_STREAM_WINDOW_SIZE: wholeNumberVariable(65_535, largestWindow),
    HTTP2_CONNECTION_WINDOW_SIZE: wholeNumberVariable(65_535, largestWindow),
    HTTP2_FRAME_SIZE: wholeNumberVariable(16_384, 16_777_215),
    HBONE_ENGINE: z.enum(engineNames, { error: `expected ${engineNames.join(" or ")}` }).default(defaultEngineName),
    CONNECTION_TERMINATION_DEADLINE: duration,
    TERMINATION_GRACE_PERIOD_SECONDS: wholeNumberVariable(0, 31_536_000),
    HALF_CLOSED_TIMEOUT: duration,
    IPV6_ENABLED: flag,
    LOCALHOST_APP_TUNNEL: flag,
    ENABLE_RESPONSE_BAGGAGE: flag,
    CRL_PATH: text,
    AUTHZ_POLICY_INFO_LOGGING: flag,
    TLS12_ENABLED: flag,
    COMPLIANCE_POLICY: z.enum(["pqc"], { error: "expected pqc or nothing" }).optional(),
    UNSTABLE_ENABLE_SOCKS5: flag,
    ENABLE_SOCKS5: flag,
    ENABLE_HTTP_CONNECT: flag,
    EXPLICIT_PROXY_ADDRESS: z
      .string()
      .refine((ip) => tryParseIp(ip) !== undefined, { error: "expected an IP address" })
      .optional(),
    RUST_LOG: text,
    LOG_FORMAT: z.enum(["plain", "json"], { error: "expected plain or json" }).default("plain"),
    ZTUNNEL_WORKER_THREADS: z
      .string()
      .regex(/^\d+%?$/, { error: "expected a number of threads, or a share of the cores such as 25%" })
      .optional(),
    ZTUNNEL_CPU_LIMIT: cpus,
    ZTUNNEL_RESOURCE_CPU_LIMIT: cpus,
    ZTUNNEL_RESOURCE_CPU_REQUEST: cpus,
    POD_NAME: text,
    POD_NAMESPACE: text,
    SERVICE_ACCOUNT: text,
    TRUST_DOMAIN: text,
    INSTANCE_IP: text,
    ISTIO_META_DNS_CAPTURE: text,
    ISTIO_META_DNS_PROXY_ADDR: text,
    ISTIO_META_ISTIO_VERSION: text,
    PROXY_CONFIG: text,
  })
  .superRefine((env, context) => {
    const refuse = (path: string, message: string): void => context.addIssue({ code: "custom", path: [path], message });
    if (env.PROXY_MODE === "dedicated" && env.PROXY_WORKLOAD_INFO === undefined) refuse("PROXY_WORKLOAD_INFO", "is required when PROXY_MODE is dedicated");
    if (env.LOCAL_XDS !== undefined && env.LOCAL_XDS_PATH !== undefined) refuse("LOCAL_XDS", "excludes LOCAL_XDS_PATH; set one of them");
    if (env.FAKE_CA === true && env.LOCAL_CA_PATH !== undefined) refuse("LOCAL_CA_PATH", "excludes FAKE_CA; set one of them");
    if (env.USER_TIMEOUT_ENABLED === true && env.KEEPALIVE_ENABLED === false)
      refuse("USER_TIMEOUT_ENABLED", "is computed from the keepalive; leave KEEPALIVE_ENABLED on");
    if (env.XDS_ON_DEMAND === true && dnsEnabled(env)) refuse("XDS_ON_DEMAND", "excludes the DNS proxy; set ISTIO_META_DNS_CAPTURE=false");
    if (env.ISTIO_META_DNS_PROXY_ADDR !== undefined && hostAndPort(env.ISTIO_META_DNS_PROXY_ADDR) === undefined) {
      refuse("ISTIO_META_DNS_PROXY_ADDR", "expected localhost:port or ip:port");
    }
    if (env.ENABLE_PROXY === false && !dnsEnabled(env)) refuse("ENABLE_PROXY", "is false and DNS capture is off: nothing would be left to do");
  });

type Environment = z.output<typeof schema>;

/** Throws RUNTIME_BAD_CONFIG naming every variable that is wrong, or ZTUNNEL_BAD_PROXY_CONFIG for an unreadable mesh configuration. */
export function readConfig(variables: Variables, surroundings: Surroundings = thisMachine): Config {
  const set = Object.fromEntries(Object.entries(variables).filter(([name, value]) => value !== "" || name === "XDS_ADDRESS" || name === "CA_ADDRESS"));
  const env = readEnvironment(schema, set);
  const { exists } = surroundings;
  const defaults = meshDefaults(env.PROXY_CONFIG, exists(meshConfigFile) ? surroundings.read(meshConfigFile) : undefined);
  const shared = env.PROXY_MODE === "shared";
  const clusterId = env.ISTIO_META_CLUSTER_ID ?? env.CLUSTER_ID ?? "Kubernetes";
  const threads = workerThreads(env, surroundings.cores, defaults.concurrency);
  return {
    mode: shared ? { kind: "shared", zdsSocket: env.INPOD_UDS ?? "/var/run/ztunnel/ztunnel.sock" } : { kind: "dedicated", pod: podOf(env.PROXY_WORKLOAD_INFO) },
    proxyEnabled: env.ENABLE_PROXY ?? true,
    socks5Enabled: env.UNSTABLE_ENABLE_SOCKS5 ?? env.ENABLE_SOCKS5 ?? false,
    httpConnectEnabled: env.ENABLE_HTTP_CONNECT ?? false,
    proxy: {
      network: networkId(env.NETWORK ?? ""),
      nodeName: env.NODE_NAME,
      onDemand: env.XDS_ON_DEMAND ?? false,
      ports: {
        outbound: 15_001,
        plaintext: 15_006,
        hbone: 15_008,
        socks5: 15_080,
        httpConnect: 15_081,
        admin: defaults.adminPort ?? 15_000,
        metrics: defaults.statsPort ?? 15_020,
        readiness: 15_021,
      },
      listenHost: ipv6Enabled(env, surroundings) ? "::" : "0.0.0.0",
      askingHost: env.EXPLICIT_PROXY_ADDRESS ?? "127.0.0.1",
      mark: env.PACKET_MARK ?? (shared ? 1337 : 0),
      reusePort: env.INPOD_PORT_REUSE ?? true,
      keepSource: env.ENABLE_ORIG_SRC === undefined ? "best-effort" : env.ENABLE_ORIG_SRC ? "required" : "never",
      keepalive: (env.KEEPALIVE_ENABLED ?? true) ? keepalive(env) : undefined,
      maxStreamsPerTunnel: env.POOL_MAX_STREAMS_PER_CONNECTION ?? 100,
      tunnelIdleMs: env.POOL_UNUSED_RELEASE_TIMEOUT ?? 300_000,
      streamWindow: env.HTTP2_STREAM_WINDOW_SIZE ?? 4_194_304,
      connectionWindow: env.HTTP2_CONNECTION_WINDOW_SIZE ?? 16_777_216,
      frameSize: env.HTTP2_FRAME_SIZE ?? 1_048_576,
      engine: env.HBONE_ENGINE,
      halfClosedMs: env.HALF_CLOSED_TIMEOUT ?? hourMs,
      localhostAppTunnel: env.LOCALHOST_APP_TUNNEL ?? true,
      baggage: env.ENABLE_RESPONSE_BAGGAGE ?? true,
      clusterId,
      policyDecisionsAtInfo: env.AUTHZ_POLICY_INFO_LOGGING ?? false,
      maxPendingConnections: defaultMaxPendingConnections,
      maxPendingHandshakes: defaultMaxPendingHandshakes,
      maxIdleTunnels: Math.ceil(defaultMaxIdleTunnels / threads),
      maxIdleTunnelsOfPeer: Math.ceil(defaultMaxIdleTunnelsOfPeer / threads),
      inboundIdleMs: defaultInboundIdleMs,
      dns: dnsEnabled(env) ? dnsOf(env, surroundings) : undefined,
    },
    clusterDomain: env.CLUSTER_DOMAIN ?? defaultClusterDomain,
    trustDomain: env.TRUST_DOMAIN ?? "cluster.local",
    rootNamespace: shared ? env.POD_NAMESPACE : undefined,
    self: shared ? selfOf(env) : undefined,
    xds: {
      ...controlPlane("XDS", { ...env, address: env.XDS_ADDRESS, roots: env.XDS_ROOT_CA, alt: env.ALT_XDS_HOSTNAME }, variables, defaults),
      local:
        env.LOCAL_XDS_PATH !== undefined
          ? { kind: "file", path: env.LOCAL_XDS_PATH }
          : env.LOCAL_XDS !== undefined
            ? { kind: "inline", yaml: env.LOCAL_XDS }
            : undefined,
    },
    ca: {
      ...controlPlane("CA", { ...env, address: env.CA_ADDRESS, roots: env.CA_ROOT_CA, alt: env.ALT_CA_HOSTNAME }, variables, defaults),
      fake: env.FAKE_CA ?? false,
      localPath: env.LOCAL_CA_PATH,
      certificateTtlMs: env.SECRET_TTL ?? 24 * hourMs,
    },
    token: controlPlaneToken(env.AUTH_TOKEN, exists),
    node: nodeOf(env, variables, defaults),
    crlPath: env.CRL_PATH,
    tls12: env.TLS12_ENABLED ?? false,
    postQuantumOnly: env.COMPLIANCE_POLICY === "pqc",
    ipv6: ipv6Enabled(env, surroundings),
    drainDeadlineMs: env.CONNECTION_TERMINATION_DEADLINE ?? drainWithin(env.TERMINATION_GRACE_PERIOD_SECONDS),
    workerThreads: threads,
    logFilter: env.RUST_LOG ?? "info",
    logFormat: env.LOG_FORMAT,
    meshVersion: env.ISTIO_META_ISTIO_VERSION ?? "unknown",
  };
}

function dnsEnabled(env: { readonly ISTIO_META_DNS_CAPTURE?: string | undefined }): boolean {
  return (env.ISTIO_META_DNS_CAPTURE ?? "true") === "true";
}

/** Contract 8: whom to ask is this process's own resolv.conf, and in dedicated mode so is what clients append to names. */
function dnsOf(env: Environment, surroundings: Surroundings): DnsConfig {
  const resolver = parseResolvConf(surroundings.exists(resolverFile) ? surroundings.read(resolverFile) : "");
  const { host, port } = hostAndPort(env.ISTIO_META_DNS_PROXY_ADDR ?? "") ?? { host: "localhost", port: 15_053 };
  const ipv6 = ipv6Enabled(env, surroundings);
  const hosts = host !== "localhost" ? [host] : ipv6 ? ["127.0.0.1", "::1"] : ["127.0.0.1"];
  return {
    listen: hosts.map((ip) => ({ host: ip, port })),
    clusterDomain: (env.CLUSTER_DOMAIN ?? defaultClusterDomain).toLowerCase(),
    searchDomains: env.PROXY_MODE === "dedicated" ? resolver.search : undefined,
    preferredNamespace: env.PREFERED_SERVICE_NAMESPACE,
    upstreams: resolver.nameservers,
    ipv6,
  };
}

/** `localhost` or an address, and a port. */
function hostAndPort(text: string): { host: string; port: number } | undefined {
  const local = /^localhost:(\d{1,5})$/.exec(text);
  const address = tryParseSocketAddress(local === null ? text : `127.0.0.1:${local[1]}`);
  return address && { host: local === null ? address.ip : "localhost", port: address.port };
}

/** The user timeout is when the last of the unanswered probes would have been given up (contract 2.2). */
function keepalive(env: Environment): Keepalive {
  const { KEEPALIVE_TIME: timeMs = 180_000, KEEPALIVE_INTERVAL: intervalMs = 180_000, KEEPALIVE_RETRIES: retries = 9 } = env;
  const keepalive = { timeMs, intervalMs, retries };
  return env.USER_TIMEOUT_ENABLED === true ? { ...keepalive, userTimeoutMs: timeMs + retries * intervalMs } : keepalive;
}

function podOf(info = "//"): PodName {
  const [namespace = "", name = "", serviceAccount = ""] = info.split("/");
  return { namespace, name, serviceAccount };
}

function selfOf(env: Environment): PodName | undefined {
  if (env.POD_NAME === undefined || env.POD_NAMESPACE === undefined || env.SERVICE_ACCOUNT === undefined) return undefined;
  return { namespace: env.POD_NAMESPACE, name: env.POD_NAME, serviceAccount: env.SERVICE_ACCOUNT };
}

function ipv6Enabled(env: Environment, { exists, read }: Surroundings): boolean {
  return (env.IPV6_ENABLED ?? true) && exists(ipv6SwitchFile) && read(ipv6SwitchFile).trim() === "0";
}

function controlPlane(
  prefix: "XDS" | "CA",
  given: { address: string | undefined; roots: string | undefined; alt: string | undefined; KUBERNETES_SERVICE_HOST?: string | undefined },
  variables: Variables,
  defaults: MeshDefaults,
): ControlPlane {
  const address = given.address ?? defaults.discoveryAddress;
  return {
    address: address === "" ? undefined : controlPlaneAddress(address, { inCluster: given.KUBERNETES_SERVICE_HOST !== undefined }),
    roots: controlPlaneRoots(given.roots),
    altHostname: given.alt,
    headers: new Map(prefixedVariables(variables, `${prefix}_HEADER_`)),
  };
}

/** Node id and metadata of contract 3.2. */
function nodeOf(env: Environment, variables: Variables, defaults: MeshDefaults): Config["node"] {
  const ip = env.INSTANCE_IP ?? "1.1.1.1";
  const name = env.POD_NAME ?? "";
  const namespace = env.POD_NAMESPACE ?? "";
  const typed = prefixedVariables(variables, "ISTIO_METAJSON_").map(([key, value]): [string, unknown] => [key, jsonOrText(value)]);
  const metadata = Object.fromEntries<unknown>([
    ["NAME", name],
    ["NAMESPACE", namespace],
    ["INSTANCE_IPS", ip],
    ["NODE_NAME", env.NODE_NAME ?? ""],
    ...defaults.metadata,
    ...prefixedVariables(variables, "ISTIO_META_"),
    ...typed,
  ]);
  return { id: `ztunnel~${ip}~${name}.${namespace}~${namespace}.svc.cluster.local`, metadata };
}

function jsonOrText(value: string): unknown {
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

/** Contract 2.2: an explicit number or share; else the CPU limit; else a quarter of the cores, never under the request or 2. */
function workerThreads(env: Environment, cores: number, concurrency: number | undefined): number {
  const given = env.ZTUNNEL_WORKER_THREADS ?? concurrency?.toString();
  if (given?.endsWith("%")) return Math.max(1, Math.ceil((cores * Number(given.slice(0, -1))) / 100));
  if (given !== undefined) return Number(given) === 0 ? cores : Number(given);
  const limit = env.ZTUNNEL_CPU_LIMIT ?? env.ZTUNNEL_RESOURCE_CPU_LIMIT;
  const request = Math.ceil(env.ZTUNNEL_RESOURCE_CPU_REQUEST ?? 0);
  return limit !== undefined ? Math.max(Math.ceil(limit), request, 1) : Math.max(Math.ceil(cores / 4), request, leastWorkers);
}
