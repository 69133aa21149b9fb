/** `/config_dump` in the shape that ambient's tools parse (ztunnel contract 9.4). No private key is reachable from here by type. */
import { X509Certificate } from "node:crypto";
import {
  type AuthorizationPolicy,
  applyChange,
  type Cidr,
  emptySnapshot,
  type GatewayAddress,
  type NetworkAddress,
  type PolicyMatch,
  type PortMapping,
  type Service,
  type Snapshot,
  type SnapshotChange,
  type StringMatch,
  serviceKey,
  type Workload,
} from "@fairway/model";
import type { CertificateState } from "@fairway/pki";
import { messageOf } from "@fairway/runtime";
import type { Config } from "./config.ts";
import type { DrainReport } from "./drain.ts";
import type { PodState } from "./pods.ts";
import type { PodConnections } from "./thread-protocol.ts";

type Json = string | number | boolean | null | undefined | readonly Json[] | { readonly [key: string]: Json };

export interface ConfigDumpSources {
  readonly config: Config;
  readonly snapshot: Snapshot;
  /** What the local file says, or nothing. */
  readonly local: SnapshotChange;
  readonly certificates: ReadonlyMap<string, CertificateState>;
  readonly pods: readonly PodState<PodConnections>[];
  readonly version: { readonly version: string; readonly gitRevision: string };
  /** While the process drains. */
  readonly drain?: DrainReport | undefined;
}

/** The whole dump; keys in the reference's order, lists sorted. */
export function configDump({ config, snapshot, local, certificates, pods, version, drain }: ConfigDumpSources): Json {
  const dumped = {
    workloads: sorted([...snapshot.workloads()], ({ uid }) => uid).map(dumpWorkload),
    ...dumpServicesAndPolicies(snapshot),
    stagedServices: dumpStaged(snapshot),
    staticConfig: dumpLocal(applyChange(emptySnapshot, local)),
    version: {
      ...version,
      rustVersion: `node ${process.version}`,
      buildProfile: "release",
      buildStatus: "Clean",
      istioVersion: config.meshVersion,
      cryptoProvider: `openssl ${process.versions.openssl}`,
    },
    config: dumpConfig(config),
    certificates: sorted([...certificates], ([identity]) => identity).map(([identity, state]) => dumpCertificate(identity, state)),
    // Ours: the reference has no such key, and its tools skip what they do not know.
    drain: drain && { ...drain },
  };
  return config.mode.kind === "shared" ? { ...dumped, workloadState: Object.fromEntries(pods.map(dumpPod)) } : dumped;
}

function dumpServicesAndPolicies(snapshot: Snapshot): { readonly services: Json; readonly policies: Json } {
  return {
    services: sorted([...snapshot.services()], ({ hostname, namespace }) => `${hostname}/${namespace}`).map((service) => dumpService(service, snapshot)),
    policies: sorted([...snapshot.policies()], ({ namespace, name }) => `${namespace}/${name}`).map(dumpPolicy),
  };
}

/** The local file in its own form: there a workload says which of its ports a service leads to. */
function dumpLocal(local: Snapshot): Json {
  const workloads = sorted([...local.workloads()], ({ uid }) => uid).map((workload) => {
    const services = Object.fromEntries([...workload.services].map(([key, ports]) => [key, dumpPorts(ports)]));
    return { ...dumpWorkload(workload), services };
  });
  const { services, policies } = dumpServicesAndPolicies(local);
  return { workloads, policies, services };
}

/** Endpoints that came before their service, or stayed behind it. */
function dumpStaged(snapshot: Snapshot): Json {
  const staged = new Map<string, [string, Json][]>();
  for (const workload of snapshot.workloads()) {
    for (const [key, ports] of workload.services) {
      if (snapshot.service(key) === undefined) staged.set(key, [...(staged.get(key) ?? []), dumpEndpoint(workload, ports)]);
    }
  }
  return Object.fromEntries(sorted([...staged], ([key]) => key).map(([key, endpoints]) => [key, Object.fromEntries(endpoints)]));
}

function dumpEndpoint({ uid, status }: Workload, ports: readonly PortMapping[]): [string, Json] {
  return [uid, { workloadUid: uid, port: dumpPorts(ports), status: status === "healthy" ? "Healthy" : "Unhealthy" }];
}

/** Fields that say nothing are left out, so that a dump shows what is special about a workload. */
function dumpWorkload(workload: Workload): { readonly [key: string]: Json } {
  const { locality, applicationTunnel: tunnel } = workload;
  return {
    workloadIps: workload.addresses,
    waypoint: dumpGateway(workload.waypoint),
    networkGateway: dumpGateway(workload.networkGateway),
    protocol: workload.tunnelProtocol === "hbone" ? "HBONE" : "TCP",
    networkMode: workload.networkMode === "host-network" ? "HostNetwork" : "Standard",
    uid: said(workload.uid),
    name: workload.name,
    namespace: workload.namespace,
    trustDomain: said(workload.trustDomain),
    serviceAccount: said(workload.serviceAccount),
    network: said(workload.network),
    workloadName: said(workload.workloadName),
    workloadType: said(workload.workloadType),
    canonicalName: said(workload.canonicalName),
    canonicalRevision: said(workload.canonicalRevision),
    hostname: said(workload.hostname),
    node: said(workload.node),
    nativeTunnel: workload.nativeTunnel || undefined,
    applicationTunnel: tunnel && { protocol: tunnel.protocol === "proxy" ? "PROXY" : "NONE", port: tunnel.port },
    authorizationPolicies: saidList(workload.authorizationPolicies),
    status: workload.status === "healthy" ? "Healthy" : "Unhealthy",
    clusterId: workload.clusterId,
    locality: locality && { region: said(locality.region), zone: said(locality.zone), subzone: said(locality.subzone) },
    services: saidList([...workload.services.keys()].sort()),
    capacity: workload.capacity,
  };
}

function dumpService(service: Service, snapshot: Snapshot): Json {
  const { loadBalancing: balancing } = service;
  const key = serviceKey(service.namespace, service.hostname);
  const endpoints = [...snapshot.endpoints(key)].map((workload) => dumpEndpoint(workload, workload.services.get(key) ?? []));
  const balanced = balancing.mode !== "unspecified" || balancing.routingPreference.length > 0 || balancing.healthPolicy !== "only-healthy";
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    vips: service.vips.map(dumpAddress),
    cidrVips: saidList(service.cidrVips.map(({ network, range }) => ({ network, cidr: dumpCidr(range) }))),
    ports: dumpPorts(service.ports),
    endpoints: Object.fromEntries(endpoints),
    subjectAltNames: saidList(service.subjectAltNames),
    waypoint: dumpGateway(service.waypoint),
    weightedWaypoints: saidList(service.weightedWaypoints.map(({ destination, weight }) => ({ destination: dumpGateway(destination), weight }))),
    loadBalancer: balanced
      ? {
          routingPreferences: balancing.routingPreference.map(capitalised),
          mode: balancing.mode === "unspecified" ? "Standard" : capitalised(balancing.mode),
          healthPolicy: balancing.healthPolicy === "allow-all" ? "AllowAll" : "OnlyHealthy",
        }
      : undefined,
    ipFamilies: { automatic: undefined, ipv4: "IPv4", ipv6: "IPv6", dual: "Dual" }[service.ipFamilies],
    canonical: service.canonical || undefined,
    visibility: capitalised(service.visibility),
  };
}

function dumpPolicy(policy: AuthorizationPolicy): Json {
  return {
    name: policy.name,
    namespace: policy.namespace,
    scope: { global: "Global", namespace: "Namespace", "workload-selector": "WorkloadSelector" }[policy.scope],
    action: capitalised(policy.action),
    rules: policy.rules.map(({ clauses }) => clauses.map(({ matches }) => matches.map(dumpMatch))),
    dryRun: policy.dryRun || undefined,
  };
}

function dumpMatch(match: PolicyMatch): Json {
  return {
    namespaces: saidList(match.namespaces.map(dumpString)),
    notNamespaces: saidList(match.notNamespaces.map(dumpString)),
    serviceAccounts: saidList(match.serviceAccounts.map(({ namespace, serviceAccount }) => ({ namespace, serviceAccount }))),
    notServiceAccounts: saidList(match.notServiceAccounts.map(({ namespace, serviceAccount }) => ({ namespace, serviceAccount }))),
    principals: saidList(match.principals.map(dumpString)),
    notPrincipals: saidList(match.notPrincipals.map(dumpString)),
    sourceIps: saidList(match.sourceIps.map(dumpCidr)),
    notSourceIps: saidList(match.notSourceIps.map(dumpCidr)),
    destinationIps: saidList(match.destinationIps.map(dumpCidr)),
    notDestinationIps: saidList(match.notDestinationIps.map(dumpCidr)),
    destinationPorts: saidList(match.destinationPorts),
    notDestinationPorts: saidList(match.notDestinationPorts),
  };
}

function dumpString(match: StringMatch): Json {
  return match.kind === "presence" ? { Presence: [] } : { [capitalised(match.kind)]: match.value };
}

function dumpPod(pod: PodState<PodConnections>): [string, Json] {
  const { namespace, name, serviceAccount } = pod.name;
  const info = { name, namespace, serviceAccount };
  if (pod.kind === "pending") return [pod.uid, { state: "Pending", info }];
  const { inbound, outbound } = pod.served;
  return [pod.uid, { state: "Up", connections: { inbound: inbound.map(nulled), outbound: outbound.map(nulled) }, info }];
}

function nulled(summary: { src: string; originalDst: string | undefined; actualDst: string; protocol: string }): Json {
  return { ...summary, originalDst: summary.originalDst ?? null };
}

function dumpCertificate(identity: string, state: CertificateState): Json {
  const certificate = state.kind === "initializing" ? undefined : state.certificate;
  return {
    identity,
    state:
      { initializing: "Initializing", available: "Available", unavailable: "" }[state.kind] ||
      `Unavailable: ${messageOf(state.kind === "unavailable" && state.error)}`,
    certChain: (certificate?.chain ?? []).map(dumpPem),
    rootCerts: (certificate?.roots ?? []).map(dumpPem),
  };
}

function dumpPem(pem: string): Json {
  const { serialNumber, validFromDate, validToDate } = new X509Certificate(pem);
  return {
    pem: Buffer.from(pem).toString("base64"),
    serialNumber: BigInt(`0x${serialNumber}`).toString(),
    validFrom: validFromDate.toISOString(),
    expirationTime: validToDate.toISOString(),
  };
}

/** A token written into the environment is a secret like any other. */
function dumpConfig(config: Config): Json {
  const { token, xds, ca, ...rest } = config;
  const plane = ({ headers, ...plain }: Config["xds"] | Config["ca"]): object => ({ ...plain, headers: [...headers.keys()] });
  return JSON.parse(JSON.stringify({ ...rest, xds: plane(xds), ca: plane(ca), token: token.kind === "literal" ? { kind: "literal" } : token }));
}

function dumpGateway(gateway: GatewayAddress | undefined): Json {
  if (gateway === undefined) return undefined;
  const { destination, hbonePort } = gateway;
  const text = destination.kind === "hostname" ? `${destination.namespace}/${destination.hostname}` : dumpAddress(destination);
  return { destination: text, hboneMtlsPort: hbonePort };
}

function dumpAddress({ network, ip }: NetworkAddress): string {
  return `${network}/${ip}`;
}

function dumpCidr({ ip, length }: Cidr): string {
  return `${ip}/${length}`;
}

function dumpPorts(ports: readonly PortMapping[]): Json {
  return Object.fromEntries(ports.map(({ servicePort, targetPort }) => [String(servicePort), targetPort]));
}

function sorted<T>(items: T[], key: (item: T) => string): T[] {
  return items.sort((a, b) => (key(a) < key(b) ? -1 : 1));
}

function said(text: string): string | undefined {
  return text === "" ? undefined : text;
}

function saidList(items: readonly Json[]): Json {
  return items.length === 0 ? undefined : items;
}

function capitalised(word: string): string {
  return word.charAt(0).toUpperCase() + word.slice(1);
}
