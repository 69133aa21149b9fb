/** The node agent's configuration: environment variables, read once. */
import { isIPv4, isIPv6 } from "node:net";
import { booleanVariable, readEnvironment, z } from "@fairway/runtime";
import type { ProbeSource } from "./probe-source.ts";

export interface AgentConfig {
  readonly nodeName: string;
  readonly podNamespace: string;
  readonly kubeconfig: string | undefined;
  readonly zdsSocket: string;
  readonly pluginSocket: string;
  /** The plugin's socket as the node sees it: the plugin runs there. */
  readonly pluginHostSocket: string;
  readonly cniEnabled: boolean;
  readonly cniBinDir: string;
  /** The same directory as whoever executes the plugin sees it. */
  readonly cniHostBinDir: string;
  /** A Node executable that is on the node already: the plugin uses it, and none is copied. */
  readonly cniHostNode: string | undefined;
  readonly cniConfDir: string;
  readonly hostProc: string;
  readonly excludeNamespaces: readonly string[];
  readonly probeIpv4: string;
  readonly probeIpv6: string;
  readonly probeSource: ProbeSource;
  readonly dnsCapture: boolean;
  /** The agent cleans the node up on shutdown if this DaemonSet is gone; undefined, by an empty variable, never. */
  readonly daemonSetName: string | undefined;
  readonly agentPodPrefix: string;
  readonly healthPort: number;
  readonly metricsPort: number;
  readonly logLevel: string;
  readonly logFormat: "plain" | "json";
}

const port = (fallback: number): z.ZodType<number> => z.coerce.number().int().min(0).max(65_535).default(fallback);
const list = (fallback: string): z.ZodType<readonly string[]> =>
  z
    .string()
    .default(fallback)
    .transform((text) =>
      text
        .split(",")
        .map((name) => name.trim())
        .filter((name) => name !== ""),
    );

const probeSource = z
  .string()
  .regex(/^(scan|any-local|skuid:\d{1,10}|mark:0x[0-9a-fA-F]{1,8})$/, 'expected "scan", "any-local", "skuid:<number>" or "mark:0x<hex>"')
  .default("scan")
  .transform((text): ProbeSource => {
    const [kind, value = ""] = text.split(":", 2);
    if (kind === "skuid") return { kind: "user", uid: Number(value) };
    if (kind === "mark") return { kind: "mark", mark: Number.parseInt(value.slice(2), 16) };
    return { kind: kind === "any-local" ? "any-local" : "scan" };
  });

const schema: z.ZodType<AgentConfig> = z
  .object({
    NODE_NAME: z.string().min(1, "must name the node this agent runs on (fieldRef spec.nodeName)"),
    POD_NAMESPACE: z.string().min(1).default("fairway-system"),
    KUBECONFIG: z.string().optional(),
    ZDS_SOCKET: z.string().default("/var/run/ztunnel/ztunnel.sock"),
    PLUGIN_SOCKET: z.string().default("/var/run/fairway-cni/agent.sock"),
    PLUGIN_HOST_SOCKET: z.string().optional(),
    CNI_ENABLED: booleanVariable.default(true),
    CNI_BIN_DIR: z.string().default("/host/opt/cni/bin"),
    CNI_HOST_BIN_DIR: z.string().default("/opt/cni/bin"),
    CNI_HOST_NODE: z.string().optional(),
    CNI_CONF_DIR: z.string().default("/host/etc/cni/net.d"),
    HOST_PROC: z.string().default("/host/proc"),
    EXCLUDE_NAMESPACES: list("kube-system"),
    HOST_PROBE_SNAT_IP: z
      .string()
      .refine((ip) => isIPv4(ip), "must be an IPv4 address")
      .default("169.254.7.127"),
    HOST_PROBE_SNAT_IPV6: z
      .string()
      .refine((ip) => isIPv6(ip), "must be an IPv6 address")
      .default("fd16:9254:7127:1337:ffff:ffff:ffff:ffff"),
    PROBE_SOURCE: probeSource,
    AMBIENT_DNS_CAPTURE: booleanVariable.default(true),
    DAEMONSET_NAME: z.string().default("fairway-node-agent"),
    AGENT_POD_PREFIX: z.string().default("fairway-node-agent-"),
    HEALTH_PORT: port(8000),
    METRICS_PORT: port(15014),
    LOG_LEVEL: z.string().default("info"),
    LOG_FORMAT: z.enum(["plain", "json"]).default("plain"),
  })
  .transform(
    (env): AgentConfig => ({
      nodeName: env.NODE_NAME,
      podNamespace: env.POD_NAMESPACE,
      kubeconfig: env.KUBECONFIG === "" ? undefined : env.KUBECONFIG,
      zdsSocket: env.ZDS_SOCKET,
      pluginSocket: env.PLUGIN_SOCKET,
      pluginHostSocket: env.PLUGIN_HOST_SOCKET ?? env.PLUGIN_SOCKET,
      cniEnabled: env.CNI_ENABLED,
      cniBinDir: env.CNI_BIN_DIR,
      cniHostBinDir: env.CNI_HOST_BIN_DIR,
      cniHostNode: env.CNI_HOST_NODE === "" ? undefined : env.CNI_HOST_NODE,
      cniConfDir: env.CNI_CONF_DIR,
      hostProc: env.HOST_PROC,
      excludeNamespaces: env.EXCLUDE_NAMESPACES,
      probeIpv4: env.HOST_PROBE_SNAT_IP,
      probeIpv6: env.HOST_PROBE_SNAT_IPV6,
      probeSource: env.PROBE_SOURCE,
      dnsCapture: env.AMBIENT_DNS_CAPTURE,
      daemonSetName: env.DAEMONSET_NAME === "" ? undefined : env.DAEMONSET_NAME,
      agentPodPrefix: env.AGENT_POD_PREFIX,
      healthPort: env.HEALTH_PORT,
      metricsPort: env.METRICS_PORT,
      logLevel: env.LOG_LEVEL,
      logFormat: env.LOG_FORMAT,
    }),
  );

/** Throws RUNTIME_BAD_CONFIG naming every variable that is wrong. */
export function readConfig(env: Readonly<Record<string, string | undefined>>): AgentConfig {
  return Object.freeze(readEnvironment(schema, env));
}
