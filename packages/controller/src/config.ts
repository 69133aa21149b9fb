/** What the controller is told at its start, under the names that the reference uses: parsed once, frozen, passed down. */
import { defaultTrustDomain, networkId } from "@fairway/model";
import { defaultCertificateTtlMs, maxCertificateTtlMs } from "@fairway/pki";
import { booleanVariable, durationVariable, readEnvironment, z } from "@fairway/runtime";
import type { MeshSettings } from "./settings.ts";
import type { WaypointPodSettings } from "./waypoint-objects.ts";

export interface Config {
  readonly settings: MeshSettings;
  /** Tells replicas apart in leader election. */
  readonly podName: string;
  /** Path of a kubeconfig; the pod's own service account when undefined. */
  readonly kubeconfig: string | undefined;
  /** `namespace/name` of the service accounts that may speak for the pods of their node. */
  readonly trustedNodeAccounts: ReadonlySet<string>;
  readonly tokenAudiences: readonly string[];
  readonly defaultCertificateTtlMs: number;
  readonly maxCertificateTtlMs: number;
  /** Names under which proxies reach us, beside those that follow from the namespace. */
  readonly extraServerNames: readonly string[];
  /** What the pods of waypoints are like. */
  readonly waypointPod: WaypointPodSettings;
  readonly ports: Ports;
  readonly logFilter: string;
  readonly logFormat: "plain" | "json";
}

/** 0 lets the system choose, which tests use. */
export interface Ports {
  readonly grpc: number;
  readonly ready: number;
  readonly metrics: number;
  readonly debug: number;
  /** For proxyless gRPC clients, without TLS of its own; undefined: they are not served. */
  readonly proxyless: number | undefined;
}

const port = (standard: number): z.ZodType<number> => z.coerce.number().int().min(0).max(65_535).default(standard);
const list = z.string().transform((text) =>
  text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== ""),
);

const texts = z.record(z.string(), z.coerce.string()).default({});
const open = z.record(z.string(), z.unknown());
/** The chart's `waypoint` values, as one JSON object. */
const waypointPod = z.object({
  imagePullPolicy: z.string().default(""),
  imagePullSecrets: z.array(z.string()).default([]),
  env: texts,
  resources: z.object({ requests: texts.optional(), limits: texts.optional() }).default({}),
  labels: texts,
  annotations: texts,
  nodeSelector: texts,
  affinity: open.default({}),
  tolerations: z.array(open).default([]),
  topologySpreadConstraints: z.array(open).default([]),
  terminationGracePeriodSeconds: z.number().int().min(1).default(30),
});

const schema = z.object({
  POD_NAMESPACE: z.string().min(1).default("fairway-system"),
  POD_NAME: z.string().min(1).default(`controller-${process.pid}`),
  KUBECONFIG: z.string().optional(),
  CLUSTER_ID: z.string().min(1).default("Kubernetes"),
  CLUSTER_DOMAIN: z.string().min(1).default("cluster.local"),
  TRUST_DOMAIN: z
    .string()
    .regex(/^[^/\s]+$/, "expected a trust domain such as cluster.local")
    .default(defaultTrustDomain),
  NETWORK: z.string().default(""),
  REVISION: z.string().default("default"),
  CA_TRUSTED_NODE_ACCOUNTS: list.optional(),
  TOKEN_AUDIENCES: list.default(["istio-ca"]),
  DEFAULT_WORKLOAD_CERT_TTL: durationVariable.optional(),
  MAX_WORKLOAD_CERT_TTL: durationVariable.optional(),
  ISTIOD_CUSTOM_HOST: list.default([]),
  AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY: booleanVariable.optional(),
  WAYPOINT_IMAGE: z.string().min(1).default("fairway/waypoint"),
  WAYPOINT_CONTROL_PLANE: z.string().optional(),
  WAYPOINT_POD: z
    .string()
    .default("{}")
    .transform((text, context) => {
      try {
        return JSON.parse(text) as unknown;
      } catch {
        context.addIssue({ code: "custom", message: "expected a JSON object" });
        return z.NEVER;
      }
    })
    .pipe(waypointPod),
  GRPC_PORT: port(15_012),
  READY_PORT: port(8_080),
  METRICS_PORT: port(15_014),
  DEBUG_PORT: port(9_876),
  PROXYLESS_PORT: z.union([z.literal("").transform(() => undefined), z.coerce.number().int().min(0).max(65_535)]).optional(),
  LOG_LEVEL: z.string().default("info"),
  LOG_FORMAT: z.enum(["plain", "json"]).default("plain"),
});

/** Throws RUNTIME_BAD_CONFIG naming every variable that is wrong. */
export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const read = readEnvironment(schema, env);
  return Object.freeze({
    settings: {
      rootNamespace: read.POD_NAMESPACE,
      clusterId: read.CLUSTER_ID,
      trustDomain: read.TRUST_DOMAIN,
      clusterDomain: read.CLUSTER_DOMAIN,
      revision: read.REVISION,
      network: networkId(read.NETWORK),
      dryRunPolicies: read.AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY ?? false,
    },
    podName: read.POD_NAME,
    kubeconfig: read.KUBECONFIG === "" ? undefined : read.KUBECONFIG,
    trustedNodeAccounts: new Set(read.CA_TRUSTED_NODE_ACCOUNTS ?? [`${read.POD_NAMESPACE}/ztunnel`]),
    tokenAudiences: read.TOKEN_AUDIENCES,
    defaultCertificateTtlMs: read.DEFAULT_WORKLOAD_CERT_TTL ?? defaultCertificateTtlMs,
    maxCertificateTtlMs: Math.min(read.MAX_WORKLOAD_CERT_TTL ?? maxCertificateTtlMs, maxCertificateTtlMs),
    extraServerNames: read.ISTIOD_CUSTOM_HOST,
    waypointPod: {
      ...(read.WAYPOINT_POD as Omit<WaypointPodSettings, "image" | "controlPlane">),
      image: read.WAYPOINT_IMAGE,
      controlPlane: read.WAYPOINT_CONTROL_PLANE ?? `https://fairway-controller.${read.POD_NAMESPACE}.svc:15012`,
    },
    ports: { grpc: read.GRPC_PORT, ready: read.READY_PORT, metrics: read.METRICS_PORT, debug: read.DEBUG_PORT, proxyless: read.PROXYLESS_PORT },
    logFilter: read.LOG_LEVEL,
    logFormat: read.LOG_FORMAT,
  });
}
