/** Workloads, services and policies with everything unremarkable filled in, for the tests of this package. */
import { defaultNetwork, type NetworkId, parseCidr, parseIp } from "./address.ts";
import { type AuthorizationPolicy, emptyMatch, type PolicyMatch } from "./policy.ts";
import type { Service } from "./service.ts";
import type { Snapshot, SnapshotChange } from "./snapshot.ts";
import { applyChange, emptySnapshot } from "./store.ts";
import { type GatewayAddress, type PortMapping, type ServiceKey, serviceKey, type Workload, type WorkloadUid } from "./workload.ts";

interface Shorthand {
  /** Addresses as text. */
  readonly ips?: readonly string[];
  /** `ns/host` to `{servicePort: targetPort}`. */
  readonly of?: Readonly<Record<string, Readonly<Record<number, number>>>>;
}

/** A captured pod of namespace "default", service account "default". */
export function aWorkload(name: string, { ips = [], of = {}, ...fields }: Partial<Workload> & Shorthand = {}): Workload {
  const namespace = fields.namespace ?? "default";
  return {
    uid: `cluster1//Pod/${namespace}/${name}` as WorkloadUid,
    name,
    namespace,
    addresses: ips.map(parseIp),
    hostname: "",
    network: defaultNetwork,
    networkMode: "standard",
    networkGateway: undefined,
    tunnelProtocol: "hbone",
    nativeTunnel: false,
    applicationTunnel: undefined,
    trustDomain: "cluster.local",
    serviceAccount: "default",
    waypoint: undefined,
    node: "node1",
    workloadName: name,
    workloadType: "deployment",
    canonicalName: name,
    canonicalRevision: "latest",
    clusterId: "Kubernetes",
    locality: undefined,
    status: "healthy",
    services: new Map(Object.entries(of).map(([key, ports]) => [key as ServiceKey, portsOf(ports)])),
    authorizationPolicies: [],
    capacity: 1,
    ...fields,
  };
}

interface ServiceShorthand {
  readonly ip?: readonly string[];
  readonly ranges?: readonly string[];
  readonly port?: Readonly<Record<number, number>>;
}

/** A service `<name>.<namespace>` of namespace "default" with port 80 to 8080. */
export function aService(name: string, { ip = [], ranges = [], port = { 80: 8080 }, ...fields }: Partial<Service> & ServiceShorthand = {}): Service {
  const namespace = fields.namespace ?? "default";
  return {
    name,
    namespace,
    hostname: `${name}.${namespace}`,
    vips: ip.map((text) => ({ network: defaultNetwork, ip: parseIp(text) })),
    cidrVips: ranges.map((text) => ({ network: defaultNetwork, range: parseCidr(text) })),
    ports: portsOf(port),
    subjectAltNames: [],
    waypoint: undefined,
    weightedWaypoints: [],
    loadBalancing: { routingPreference: [], mode: "unspecified", healthPolicy: "only-healthy" },
    ipFamilies: "automatic",
    canonical: false,
    ingressUseWaypoint: false,
    visibility: "public",
    ...fields,
  };
}

/** An enforced ALLOW of namespace "default" with one rule of one clause of one match. */
export function aPolicy(name: string, match: Partial<PolicyMatch> = {}, fields: Partial<AuthorizationPolicy> = {}): AuthorizationPolicy {
  return {
    name,
    namespace: "default",
    scope: "namespace",
    action: "allow",
    rules: [{ clauses: [{ matches: [{ ...emptyMatch, ...match }] }] }],
    dryRun: false,
    ...fields,
  };
}

export function aMesh(change: SnapshotChange): Snapshot {
  return applyChange(emptySnapshot, change);
}

export function byHostname(namespace: string, hostname: string, hbonePort = 15_008): GatewayAddress {
  return { destination: { kind: "hostname", namespace, hostname }, hbonePort };
}

export function byAddress(ip: string, hbonePort = 15_008, network: NetworkId = defaultNetwork): GatewayAddress {
  return { destination: { kind: "address", network, ip: parseIp(ip) }, hbonePort };
}

export function keyOfService({ namespace, hostname }: Service): ServiceKey {
  return serviceKey(namespace, hostname);
}

function portsOf(ports: Readonly<Record<number, number>>): PortMapping[] {
  return Object.entries(ports).map(([servicePort, targetPort]) => ({ servicePort: Number(servicePort), targetPort, appProtocol: "unknown" }));
}
