/**
 * From environment variables to a Config: each variable's form and default stand here and nowhere else; names are those of a ztunnel where it
 * has them. An empty variable is an unset one. All problems are named at once.
 */
import { existsSync, readFileSync } from "node:fs";
import { defaultEngineName, engineNames } from "@fairway/hbone";
import { networkId, parseSpiffeId, type SpiffeId, spiffeId, tryParseSpiffeId } from "@fairway/model";
import { controlPlaneAddress, controlPlaneRoots, controlPlaneToken } from "@fairway/pki";
import { booleanVariable, drainWithin, durationVariable, prefixedVariables, readEnvironment, type Variables, wholeNumberVariable, z } from "@fairway/runtime";
import { waypointNode } from "@fairway/xds";
import type { Config, ControlPlane, TracingConfig } from "./config.ts";
import { defaultHttpLimits } from "./http-connection.ts";
import { defaultReplayBytes } from "./replay-body.ts";

/** Files that defaults depend on; a parameter, so that tests need no such files. */
export interface Surroundings {
  readonly exists: (path: string) => boolean;
  readonly read: (path: string) => string;
}

const thisMachine: Surroundings = { exists: existsSync, read: (path) => readFileSync(path, "utf8") };

const ipv6SwitchFile = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
const hourMs = 3_600_000;
const defaultWorkers = 2;
const mostWorkers = 64;
const defaultMaxPendingHandshakes = 1_024;
const defaultMaxTunnels = 10_000;
const defaultHalfClosedMs = 60_000;

const text = z.string().optional();
const flag = booleanVariable.optional();
const duration = durationVariable.optional();

const identities = z
  .string()
  .transform((value) => value.split(",").map((name) => name.trim()))
  .pipe(z.array(z.string().refine((name) => tryParseSpiffeId(name) !== undefined, { error: "expected SPIFFE identities, separated by commas" })))
  .optional();
const normalizations = ["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"] as const;
const samplers = ["always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"] as const;
const share = z
  .string()
  .regex(/^(0(\.\d+)?|1(\.0+)?)$/, { error: "expected a share from 0 to 1" })
  .transform(Number)
  .optional();

const schema = z.object({
  GATEWAY_NAME: z.string({ error: "is required: the name of the Gateway" }),
  POD_NAME: text,
  POD_NAMESPACE: z.string({ error: "is required: the namespace of the Gateway" }),
  SERVICE_ACCOUNT: z.string({ error: "is required: the service account of this pod" }),
  NODE_NAME: text,
  INSTANCE_IP: text,
  NETWORK: text,
  CLUSTER_ID: text,
  ISTIO_META_CLUSTER_ID: text,
  CLUSTER_DOMAIN: text,
  TRUST_DOMAIN: text,
  XDS_ADDRESS: text,
  CA_ADDRESS: text,
  KUBERNETES_SERVICE_HOST: text,
  XDS_ROOT_CA: text,
  CA_ROOT_CA: text,
  ALT_XDS_HOSTNAME: text,
  ALT_CA_HOSTNAME: text,
  AUTH_TOKEN: text,
  SECRET_TTL: duration,
  POOL_MAX_STREAMS_PER_CONNECTION: wholeNumberVariable(1, 65_535),
  POOL_UNUSED_RELEASE_TIMEOUT: duration,
  HBONE_ENGINE: z.enum(engineNames, { error: `expected ${engineNames.join(" or ")}` }).default(defaultEngineName),
  CONNECTION_TERMINATION_DEADLINE: duration,
  TERMINATION_GRACE_PERIOD_SECONDS: wholeNumberVariable(0, 31_536_000),
  IPV6_ENABLED: flag,
  RUST_LOG: text,
  LOG_FORMAT: z.enum(["plain", "json"], { error: "expected plain or json" }).default("plain"),
  ACCESS_LOG: z.enum(["text", "json", "off"], { error: "expected text, json or off" }).default("text"),
  PATH_NORMALIZATION: z.enum(normalizations, { error: `expected one of ${normalizations.join(", ")}` }).default("BASE"),
  XFF_TRUSTED_HOPS: wholeNumberVariable(0, 100),
  TRUSTED_GATEWAYS: identities,
  REQUEST_REPLAY_BYTES: wholeNumberVariable(0, 16 * 1024 * 1024),
  HTTP_IDLE_TIMEOUT: duration,
  HTTP_HEADERS_TIMEOUT: duration,
  TCP_IDLE_TIMEOUT: duration,
  HALF_CLOSED_TIMEOUT: duration,
  WAYPOINT_WORKER_THREADS: wholeNumberVariable(1, mostWorkers),
  OTEL_EXPORTER_OTLP_ENDPOINT: text,
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: text,
  OTEL_EXPORTER_OTLP_HEADERS: text,
  OTEL_SERVICE_NAME: text,
  OTEL_TRACES_SAMPLER: z.enum(samplers, { error: `expected one of ${samplers.join(", ")}` }).default("parentbased_traceidratio"),
  OTEL_TRACES_SAMPLER_ARG: share,
  ISTIO_META_ISTIO_VERSION: text,
});

type Environment = z.output<typeof schema>;

/** Throws RUNTIME_BAD_CONFIG naming every variable that is wrong. */
export function readConfig(variables: Variables, surroundings: Surroundings = thisMachine): Config {
  const set = Object.fromEntries(Object.entries(variables).filter(([, value]) => value !== ""));
  const env = readEnvironment(schema, set);
  const { exists } = surroundings;
  const clusterId = env.ISTIO_META_CLUSTER_ID ?? env.CLUSTER_ID ?? "Kubernetes";
  const trustDomain = env.TRUST_DOMAIN ?? "cluster.local";
  const ipv6 = (env.IPV6_ENABLED ?? true) && exists(ipv6SwitchFile) && surroundings.read(ipv6SwitchFile).trim() === "0";
  const ports = { hbone: 15_008, admin: 15_000, metrics: 15_020, readiness: 15_021 };
  return {
    proxy: {
      identity: spiffeId({ trustDomain, namespace: env.POD_NAMESPACE, serviceAccount: env.SERVICE_ACCOUNT }),
      gateway: `${env.POD_NAMESPACE}/${env.GATEWAY_NAME}`,
      namespace: env.POD_NAMESPACE,
      network: networkId(env.NETWORK ?? ""),
      clusterId,
      listen: { host: ipv6 ? "::" : "0.0.0.0", port: ports.hbone, reusePort: true },
      workloadPort: ports.hbone,
      ownAddresses: env.INSTANCE_IP === undefined ? [] : [env.INSTANCE_IP],
      trustedGateways: (env.TRUSTED_GATEWAYS ?? []).map((name): SpiffeId => parseSpiffeId(name)),
      trustedHops: env.XFF_TRUSTED_HOPS ?? 0,
      pathNormalization: normalizationNames[env.PATH_NORMALIZATION],
      httpLimits: {
        ...defaultHttpLimits,
        idleTimeoutMs: env.HTTP_IDLE_TIMEOUT ?? defaultHttpLimits.idleTimeoutMs,
        headersTimeoutMs: env.HTTP_HEADERS_TIMEOUT ?? defaultHttpLimits.headersTimeoutMs,
      },
      tunnelIdleMs: env.POOL_UNUSED_RELEASE_TIMEOUT ?? 300_000,
      maxStreamsPerTunnel: env.POOL_MAX_STREAMS_PER_CONNECTION ?? 100,
      replayBytes: env.REQUEST_REPLAY_BYTES ?? defaultReplayBytes,
      tcpIdleMs: env.TCP_IDLE_TIMEOUT ?? hourMs,
      halfClosedMs: env.HALF_CLOSED_TIMEOUT ?? defaultHalfClosedMs,
      maxPendingHandshakes: defaultMaxPendingHandshakes,
      maxTunnels: defaultMaxTunnels,
      engine: env.HBONE_ENGINE,
      accessLog: env.ACCESS_LOG,
      tracing: tracing(env),
    },
    ports,
    xds: controlPlane("XDS", { ...env, address: env.XDS_ADDRESS, roots: env.XDS_ROOT_CA, alt: env.ALT_XDS_HOSTNAME }, set),
    ca: {
      ...controlPlane("CA", { ...env, address: env.CA_ADDRESS, roots: env.CA_ROOT_CA, alt: env.ALT_CA_HOSTNAME }, set),
      certificateTtlMs: env.SECRET_TTL ?? 24 * hourMs,
    },
    token: controlPlaneToken(env.AUTH_TOKEN, exists),
    node: waypointNode({
      instanceIp: env.INSTANCE_IP ?? "1.1.1.1",
      podName: env.POD_NAME ?? env.GATEWAY_NAME,
      podNamespace: env.POD_NAMESPACE,
      nodeName: env.NODE_NAME ?? "",
      metadata: { CLUSTER_ID: clusterId, GATEWAY_NAME: env.GATEWAY_NAME, ...Object.fromEntries(prefixedVariables(set, "ISTIO_META_")) },
    }),
    trustDomain,
    ipv6,
    drainDeadlineMs: env.CONNECTION_TERMINATION_DEADLINE ?? drainWithin(env.TERMINATION_GRACE_PERIOD_SECONDS),
    workerThreads: env.WAYPOINT_WORKER_THREADS ?? defaultWorkers,
    logFilter: env.RUST_LOG ?? "info",
    logFormat: env.LOG_FORMAT,
    meshVersion: env.ISTIO_META_ISTIO_VERSION ?? "unknown",
  };
}

const normalizationNames = {
  NONE: "none",
  BASE: "base",
  MERGE_SLASHES: "merge-slashes",
  DECODE_AND_MERGE_SLASHES: "decode-and-merge-slashes",
} as const;

/** The variables of the OpenTelemetry specification: a traces endpoint is taken as it is, the common one gets the path. */
function tracing(env: Environment): TracingConfig {
  const common = env.OTEL_EXPORTER_OTLP_ENDPOINT;
  const endpoint = env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT ?? (common === undefined ? undefined : `${common.replace(/\/+$/, "")}/v1/traces`);
  const sampler = env.OTEL_TRACES_SAMPLER;
  const ratio = sampler.endsWith("always_on") ? 1 : sampler.endsWith("always_off") ? 0 : (env.OTEL_TRACES_SAMPLER_ARG ?? defaultRatio);
  const headers = (env.OTEL_EXPORTER_OTLP_HEADERS ?? "").split(",").flatMap((pair): [string, string][] => {
    const equals = pair.indexOf("=");
    return equals <= 0 ? [] : [[pair.slice(0, equals).trim(), pair.slice(equals + 1).trim()]];
  });
  return {
    endpoint,
    headers: Object.fromEntries(headers),
    ratio,
    parentBased: sampler.startsWith("parentbased"),
    serviceName: env.OTEL_SERVICE_NAME ?? `${env.GATEWAY_NAME}.${env.POD_NAMESPACE}`,
  };
}

/** The reference's default: one request in a hundred. */
const defaultRatio = 0.01;

function controlPlane(
  prefix: "XDS" | "CA",
  given: { address: string | undefined; roots: string | undefined; alt: string | undefined; KUBERNETES_SERVICE_HOST?: string | undefined },
  variables: Variables,
): ControlPlane {
  return {
    address: controlPlaneAddress(given.address, { inCluster: given.KUBERNETES_SERVICE_HOST !== undefined }),
    roots: controlPlaneRoots(given.roots),
    altHostname: given.alt,
    headers: new Map(prefixedVariables(variables, `${prefix}_HEADER_`)),
  };
}
