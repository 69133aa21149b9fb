/** The YAML of a local mesh (ztunnel contract 3.6). Unknown keys are refused, so that a typing error is seen. */
import {
  type AuthorizationPolicy,
  type GatewayAddress,
  type NetworkAddress,
  networkId,
  type PolicyKey,
  type PolicyMatch,
  type PortMapping,
  parseCidr,
  parseIp,
  parseSpiffeId,
  type Service,
  type ServiceKey,
  type SnapshotChange,
  type StringMatch,
  serviceKey,
  tryParseIp,
  type Workload,
  type WorkloadUid,
} from "@fairway/model";
import { MeshError, messageOf } from "@fairway/runtime";
import { parse } from "yaml";
import { z } from "zod";

/** Throws MeshError XDS_FILE_INVALID naming the first wrong keys and values. `origin` is only for the message. */
export function parseMesh(text: string, origin = "the local mesh"): SnapshotChange {
  const fail = (problem: string, cause?: unknown): MeshError => new MeshError("XDS_FILE_INVALID", `${origin} is not valid: ${problem}`, { cause });
  let document: unknown;
  try {
    document = parse(text, { maxAliasCount: maxAliases, logLevel: "error" }) ?? {};
  } catch (cause) {
    throw fail("it is not YAML", cause);
  }
  const result = fileSchema.safeParse(document);
  if (!result.success) {
    const problems = result.error.issues.slice(0, maxProblems).map(({ path, message }) => `${path.length === 0 ? "top level" : path.join(".")}: ${message}`);
    throw fail(problems.join("; "));
  }
  try {
    const { workloads, services, policies } = result.data;
    const members = endpointsOf(services ?? []);
    return {
      workloads: (workloads ?? []).map((file) => withServices(toWorkload(file), members)),
      services: (services ?? []).map(toService),
      policies: (policies ?? []).map(toPolicy),
    };
  } catch (cause) {
    throw fail(messageOf(cause), cause);
  }
}

const maxProblems = 8;
const maxAliases = 100;

const port = z.number().int().min(0).max(65_535);
const portKey = z.string().regex(/^\d{1,5}$/, "expected a port number");
/** `{80: 8080}`: service port to target port. */
const ports = z.record(portKey, port);

const gateway = z.strictObject({ destination: z.string(), hboneMtlsPort: port.default(15_008) });

const locality = z.strictObject({ region: z.string().default(""), zone: z.string().default(""), subzone: z.string().default("") });

const workloadSchema = z.strictObject({
  workloadIps: z.array(z.string()).default([]),
  namespace: z.string(),
  services: z.record(z.string(), ports),
  waypoint: gateway.nullish(),
  networkGateway: gateway.nullish(),
  protocol: z.enum(["HBONE", "TCP"]).default("TCP"),
  networkMode: z.enum(["Standard", "HostNetwork"]).default("Standard"),
  uid: z.string().default(""),
  name: z.string().default(""),
  trustDomain: z.string().default(""),
  serviceAccount: z.string().default(""),
  network: z.string().default(""),
  workloadName: z.string().default(""),
  workloadType: z.enum(["deployment", "cronjob", "pod", "job"]).default("pod"),
  canonicalName: z.string().default(""),
  canonicalRevision: z.string().default(""),
  hostname: z.string().default(""),
  node: z.string().default(""),
  nativeTunnel: z.boolean().default(false),
  applicationTunnel: z.strictObject({ protocol: z.enum(["NONE", "PROXY"]), port: port.nullish() }).nullish(),
  authorizationPolicies: z.array(z.string()).default([]),
  status: z.enum(["Healthy", "Unhealthy"]).default("Healthy"),
  clusterId: z.string().default(""),
  locality: locality.nullish(),
  capacity: z.number().int().min(0).default(1),
});

const serviceSchema = z.strictObject({
  name: z.string(),
  namespace: z.string(),
  hostname: z.string(),
  vips: z.array(z.string()),
  ports,
  cidrVips: z.array(z.strictObject({ network: z.string().default(""), cidr: z.string() })).default([]),
  /** By uid; another way to say what the workloads' own `services` say, which go before it. */
  endpoints: z
    .record(z.string(), z.strictObject({ workloadUid: z.string(), port: ports.default({}), status: z.enum(["Healthy", "Unhealthy"]).optional() }))
    .nullish(),
  subjectAltNames: z.array(z.string()).default([]),
  waypoint: gateway.nullish(),
  weightedWaypoints: z.array(z.strictObject({ destination: gateway, weight: z.number().int().min(0) })).default([]),
  loadBalancer: z
    .strictObject({
      routingPreferences: z.array(z.enum(["Region", "Zone", "Subzone", "Node", "Cluster", "Network"])).default([]),
      mode: z.enum(["Standard", "Strict", "Failover", "Passthrough"]).default("Standard"),
      healthPolicy: z.enum(["OnlyHealthy", "AllowAll"]).default("OnlyHealthy"),
    })
    .nullish(),
  ipFamilies: z.enum(["Dual", "IPv4", "IPv6"]).nullish(),
  canonical: z.boolean().default(false),
  visibility: z.enum(["Public", "Namespace"]).default("Public"),
});

const stringMatch = z.union([
  z.strictObject({ Exact: z.string() }),
  z.strictObject({ Prefix: z.string() }),
  z.strictObject({ Suffix: z.string() }),
  z.strictObject({ Presence: z.unknown() }),
  z.literal("Presence"),
]);
const strings = z.array(stringMatch).default([]);
const cidrs = z.array(z.string()).default([]);
const portList = z.array(port).default([]);
const accounts = z.array(z.strictObject({ namespace: z.string(), serviceAccount: z.string() })).default([]);

const match = z.strictObject({
  namespaces: strings,
  notNamespaces: strings,
  principals: strings,
  notPrincipals: strings,
  sourceIps: cidrs,
  notSourceIps: cidrs,
  destinationIps: cidrs,
  notDestinationIps: cidrs,
  destinationPorts: portList,
  notDestinationPorts: portList,
  serviceAccounts: accounts,
  notServiceAccounts: accounts,
});

const policySchema = z.strictObject({
  name: z.string(),
  namespace: z.string(),
  scope: z.enum(["Global", "Namespace", "WorkloadSelector"]),
  action: z.enum(["Allow", "Deny"]),
  dryRun: z.boolean().default(false),
  rules: z.array(z.array(z.array(match))).default([]),
});

const fileSchema = z.strictObject({
  workloads: z.array(workloadSchema).nullish(),
  policies: z.array(policySchema).nullish(),
  services: z.array(serviceSchema).nullish(),
});

type FileWorkload = z.output<typeof workloadSchema>;
type FileService = z.output<typeof serviceSchema>;
type FilePolicy = z.output<typeof policySchema>;
type FileStringMatch = z.output<typeof stringMatch>;
type FileMatch = z.output<typeof match>;
type FileGateway = z.output<typeof gateway>;

/** Defaults are those of a workload that came over the wire (ztunnel contract 4.1). */
function toWorkload(file: FileWorkload): Workload {
  const { workloadIps, namespace, name } = file;
  return {
    uid: (file.uid !== "" ? file.uid : `${file.clusterId || "Kubernetes"}//Pod/${namespace}/${name !== "" ? name : (workloadIps[0] ?? "")}`) as WorkloadUid,
    name,
    namespace,
    addresses: workloadIps.map(parseIp),
    hostname: file.hostname,
    network: networkId(file.network),
    networkMode: file.networkMode === "HostNetwork" ? "host-network" : "standard",
    networkGateway: toGateway(file.networkGateway),
    tunnelProtocol: file.protocol === "HBONE" ? "hbone" : "none",
    nativeTunnel: file.nativeTunnel,
    applicationTunnel: file.applicationTunnel
      ? { protocol: file.applicationTunnel.protocol === "PROXY" ? "proxy" : "none", port: file.applicationTunnel.port || undefined }
      : undefined,
    trustDomain: file.trustDomain || "cluster.local",
    serviceAccount: file.serviceAccount || "default",
    waypoint: toGateway(file.waypoint),
    node: file.node,
    workloadName: file.workloadName,
    workloadType: file.workloadType,
    canonicalName: file.canonicalName,
    canonicalRevision: file.canonicalRevision,
    clusterId: file.clusterId || "Kubernetes",
    locality: file.locality ?? undefined,
    status: file.status === "Healthy" ? "healthy" : "unhealthy",
    services: new Map(Object.entries(file.services).map(([key, ports]) => [toServiceKey(key), toPorts(ports)])),
    authorizationPolicies: file.authorizationPolicies.map((key) => key as PolicyKey),
    capacity: file.capacity,
  };
}

/** The services that name a workload as their endpoint, by the workload's uid. */
function endpointsOf(services: readonly FileService[]): ReadonlyMap<string, ReadonlyMap<ServiceKey, readonly PortMapping[]>> {
  const members = new Map<string, Map<ServiceKey, readonly PortMapping[]>>();
  for (const { namespace, hostname, endpoints } of services) {
    for (const { workloadUid, port: mapped } of Object.values(endpoints ?? {})) {
      const of = members.get(workloadUid) ?? new Map<ServiceKey, readonly PortMapping[]>();
      members.set(workloadUid, of.set(serviceKey(namespace, hostname), toPorts(mapped)));
    }
  }
  return members;
}

function withServices(workload: Workload, members: ReturnType<typeof endpointsOf>): Workload {
  const more = members.get(workload.uid);
  return more === undefined ? workload : { ...workload, services: new Map([...more, ...workload.services]) };
}

function toService(file: FileService): Service {
  const { loadBalancer } = file;
  return {
    name: file.name,
    namespace: file.namespace,
    hostname: file.hostname,
    vips: file.vips.map(toNetworkAddress),
    cidrVips: file.cidrVips.map(({ network, cidr }) => ({ network: networkId(network), range: parseCidr(cidr) })),
    ports: toPorts(file.ports),
    subjectAltNames: file.subjectAltNames.map(parseSpiffeId),
    waypoint: toGateway(file.waypoint),
    weightedWaypoints: file.weightedWaypoints.map(({ destination, weight }) => ({ destination: requireGateway(destination), weight })),
    loadBalancing: {
      routingPreference: (loadBalancer?.routingPreferences ?? []).map((scope) => scopes[scope]),
      mode: modes[loadBalancer?.mode ?? "Standard"],
      healthPolicy: loadBalancer?.healthPolicy === "AllowAll" ? "allow-all" : "only-healthy",
    },
    ipFamilies: file.ipFamilies ? families[file.ipFamilies] : "automatic",
    canonical: file.canonical,
    ingressUseWaypoint: false,
    visibility: file.visibility === "Namespace" ? "namespace" : "public",
  };
}

function toPolicy(file: FilePolicy): AuthorizationPolicy {
  return {
    name: file.name,
    namespace: file.namespace,
    scope: policyScopes[file.scope],
    action: file.action === "Deny" ? "deny" : "allow",
    dryRun: file.dryRun,
    rules: file.rules.map((clauses) => ({ clauses: clauses.map((matches) => ({ matches: matches.map(toMatch) })) })),
  };
}

function toMatch(file: FileMatch): PolicyMatch {
  return {
    ...file,
    namespaces: file.namespaces.map(toStringMatch),
    notNamespaces: file.notNamespaces.map(toStringMatch),
    principals: file.principals.map(toStringMatch),
    notPrincipals: file.notPrincipals.map(toStringMatch),
    sourceIps: file.sourceIps.map(parseCidr),
    notSourceIps: file.notSourceIps.map(parseCidr),
    destinationIps: file.destinationIps.map(parseCidr),
    notDestinationIps: file.notDestinationIps.map(parseCidr),
  };
}

function toStringMatch(file: FileStringMatch): StringMatch {
  if (file === "Presence" || "Presence" in file) return { kind: "presence" };
  if ("Exact" in file) return { kind: "exact", value: file.Exact };
  return "Prefix" in file ? { kind: "prefix", value: file.Prefix } : { kind: "suffix", value: file.Suffix };
}

const scopes = { Region: "region", Zone: "zone", Subzone: "subzone", Node: "node", Cluster: "cluster", Network: "network" } as const;
const modes = { Standard: "unspecified", Strict: "strict", Failover: "failover", Passthrough: "passthrough" } as const;
const families = { Dual: "dual", IPv4: "ipv4", IPv6: "ipv6" } as const;
const policyScopes = { Global: "global", Namespace: "namespace", WorkloadSelector: "workload-selector" } as const;

function toPorts(ports: Readonly<Record<string, number>>): PortMapping[] {
  return Object.entries(ports).map(([servicePort, targetPort]) => ({ servicePort: Number(servicePort), targetPort, appProtocol: "unknown" }));
}

/** `network/ip`; the network may be empty, also together with the slash. */
function toNetworkAddress(text: string): NetworkAddress {
  const at = text.lastIndexOf("/");
  return { network: networkId(at < 0 ? "" : text.slice(0, at)), ip: parseIp(text.slice(at + 1)) };
}

function toServiceKey(key: string): ServiceKey {
  if (!/^[^/]+\/[^/]+$/.test(key)) throw new MeshError("XDS_FILE_INVALID", `the service ${JSON.stringify(key)} must be written namespace/hostname`);
  return key as ServiceKey;
}

function toGateway(gateway: FileGateway | null | undefined): GatewayAddress | undefined {
  return gateway ? requireGateway(gateway) : undefined;
}

/** `network/ip`, or else `namespace/hostname`. */
function requireGateway({ destination, hboneMtlsPort }: FileGateway): GatewayAddress {
  const at = destination.indexOf("/");
  const rest = destination.slice(at + 1);
  if (tryParseIp(rest) !== undefined) return { destination: { kind: "address", ...toNetworkAddress(destination) }, hbonePort: hboneMtlsPort };
  const [namespace = "", hostname = ""] = toServiceKey(destination).split("/");
  return { destination: { kind: "hostname", namespace, hostname }, hbonePort: hboneMtlsPort };
}
