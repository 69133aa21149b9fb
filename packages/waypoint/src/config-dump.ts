/** The state of this process for people: what it serves, where it sends it, and what each thread makes of the endpoints. No secrets. */
import { X509Certificate } from "node:crypto";
import { formatSocketAddress, type RouteTable, type ServedTarget, type TokenRule, type WaypointConfig } from "@fairway/model";
import type { CertificateState } from "@fairway/pki";
import { messageOf } from "@fairway/runtime";
import type { ClusterState } from "./cluster-state.ts";
import type { Config } from "./config.ts";

/** One cluster as one thread sees it. */
export interface ClusterDump {
  readonly name: string;
  readonly requests: number;
  readonly connections: number;
  readonly endpoints: readonly {
    readonly address: string;
    readonly workload: string;
    readonly health: string;
    readonly ejections: number;
    readonly active: number;
    readonly priority: number;
    readonly weight: number;
  }[];
}

export interface ConfigDumpSources {
  readonly config: Config;
  readonly waypoint: WaypointConfig;
  readonly synced: boolean;
  readonly certificates: ReadonlyMap<string, CertificateState>;
  readonly threads: readonly (readonly ClusterDump[])[];
  readonly version: { readonly version: string; readonly gitRevision: string };
}

export function dumpCluster(state: ClusterState): ClusterDump {
  return {
    name: state.cluster.name,
    requests: state.breakers.taken("requests"),
    connections: state.breakers.taken("connections"),
    endpoints: [...state.hosts()].map(({ endpoint, health, active, priority, weight }) => ({
      address: formatSocketAddress(endpoint.address),
      workload: endpoint.workload,
      health: endpoint.health,
      ejections: health.ejections,
      active,
      priority,
      weight,
    })),
  };
}

/** Plain values, ready to be written as JSON. */
export function configDump({ config, waypoint, synced, certificates, threads, version }: ConfigDumpSources): object {
  return {
    version: { ...version, node: process.version, meshVersion: config.meshVersion },
    synced,
    gateway: config.proxy.gateway,
    targets: sorted([...waypoint.targets.values()], ({ name }) => name).map(dumpTarget),
    routes: sorted([...waypoint.routeTables.values()], ({ name }) => name).map(dumpTable),
    clusters: sorted([...waypoint.clusters.values()], ({ name }) => name),
    endpoints: sorted([...waypoint.endpoints.values()], ({ cluster }) => cluster),
    threads: threads.map((clusters) => sorted([...clusters], ({ name }) => name)),
    certificates: [...certificates].map(([identity, state]) => dumpCertificate(identity, state)),
    config: dumpConfig(config),
  };
}

/** Patterns are shown as they were written. */
function dumpTable(table: RouteTable): unknown {
  return plain(table);
}

function dumpTarget(target: ServedTarget): unknown {
  return plain({ ...target, ports: target.ports.map(withoutKeys), anyPort: target.anyPort && withoutKeys(target.anyPort) });
}

/** Keys are public, and long. */
function withoutKeys<P extends { readonly tokens: readonly TokenRule[] }>(port: P): object {
  return { ...port, tokens: port.tokens.map(({ keys, ...rule }) => ({ ...rule, keys: keys.kind === "inline" ? { kind: "inline" } : keys })) };
}

function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}

function dumpCertificate(identity: string, state: CertificateState): object {
  const certificate = state.kind === "initializing" ? undefined : state.certificate;
  return {
    identity,
    state: state.kind === "unavailable" ? `unavailable: ${messageOf(state.error)}` : state.kind,
    chain: (certificate?.chain ?? []).map(dumpPem),
    roots: (certificate?.roots ?? []).map(dumpPem),
  };
}

function dumpPem(pem: string): object {
  const { serialNumber, validFromDate, validToDate } = new X509Certificate(pem);
  return { serialNumber: BigInt(`0x${serialNumber}`).toString(), validFrom: validFromDate.toISOString(), expirationTime: validToDate.toISOString() };
}

/** A token written into the environment is a secret like any other, and so are headers of collectors. */
function dumpConfig(config: Config): unknown {
  const { token, xds, ca, proxy, ...rest } = config;
  const plane = ({ headers, ...others }: Config["xds"] | Config["ca"]): object => ({ ...others, headers: [...headers.keys()] });
  const tracing = { ...proxy.tracing, headers: Object.keys(proxy.tracing.headers) };
  return plain({ ...rest, proxy: { ...proxy, tracing }, xds: plane(xds), ca: plane(ca), token: token.kind === "literal" ? { kind: "literal" } : token });
}

function sorted<T>(items: T[], key: (item: T) => string): T[] {
  return items.sort((a, b) => (key(a) < key(b) ? -1 : 1));
}
