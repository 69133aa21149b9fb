/** What the controller is told at its start, under the names that the reference uses: parsed once, frozen, passed down. */
import { defaultTrustDomain, networkId } from "@fairway/model";
import { defaultCertificateTtlMs, maxCertificateTtlMs } from "@fairway/pki";
import { booleanVariable, durationVariable, readEnvironment, z } from "@fairway/runtime";
import type { MeshSettings } from "./settings.ts";

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
}

const port = (standard: number): z.ZodType<number> => z.coerce.number().int().min(0).max(65_535).default(standard);
const list = z.string().transform((text) =>
  text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== ""),
);

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
  GRPC_PORT: port(15_012),
  READY_PORT: port(8_080),
  METRICS_PORT: port(15_014),
  DEBUG_PORT: port(9_876),
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
    ports: { grpc: read.GRPC_PORT, ready: read.READY_PORT, metrics: read.METRICS_PORT, debug: read.DEBUG_PORT },
    logFilter: read.LOG_LEVEL,
    logFormat: read.LOG_FORMAT,
  });
}
