/** What a waypoint is told at its start: parsed once by `environment.ts`, frozen, passed down. No file but these two knows a variable's name. */
import type { EngineName } from "@fairway/hbone";
import type { NetworkId, PathNormalization, SpiffeId } from "@fairway/model";
import type { ControlPlaneRoots, ControlPlaneToken } from "@fairway/pki";
import type { HttpLimits } from "./http-connection.ts";

/** One control plane service. */
export interface ControlPlane {
  /** `https://host:port`. */
  readonly address: string;
  /** Whose signature proves it. */
  readonly roots: ControlPlaneRoots;
  /** A second server name that is accepted. */
  readonly altHostname: string | undefined;
  /** Extra gRPC metadata. */
  readonly headers: ReadonlyMap<string, string>;
}

/** Where spans go. */
export interface TracingConfig {
  /** `…/v1/traces`; undefined: nowhere, and nothing of ours is put between the caller's span and the upstream's. */
  readonly endpoint: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
  /** Share of the requests without a decision of the caller's that are sampled, 0 to 1. */
  readonly ratio: number;
  /** Take the caller's decision, where there is one. */
  readonly parentBased: boolean;
  readonly serviceName: string;
}

export interface Ports {
  readonly hbone: number;
  readonly admin: number;
  readonly metrics: number;
  readonly readiness: number;
}

/** What every worker thread is told. Plain data: it crosses to another thread. */
export interface ProxyConfig {
  readonly identity: SpiffeId;
  /** `<namespace>/<name>` of the Gateway. */
  readonly gateway: string;
  readonly namespace: string;
  readonly network: NetworkId;
  readonly clusterId: string;
  readonly listen: { readonly host: string; readonly port: number; readonly reusePort: boolean };
  /** Where workloads accept tunnels. */
  readonly workloadPort: number;
  readonly ownAddresses: readonly string[];
  readonly trustedGateways: readonly SpiffeId[];
  readonly trustedHops: number;
  readonly pathNormalization: PathNormalization;
  readonly httpLimits: HttpLimits;
  readonly tunnelIdleMs: number;
  readonly maxStreamsPerTunnel: number;
  readonly replayBytes: number;
  readonly tcpIdleMs: number;
  /** How long a client of HTTP/1 that sent its FIN is still answered: it may be gone, which only a write would show. */
  readonly halfClosedMs: number;
  readonly maxPendingHandshakes: number;
  readonly maxTunnels: number;
  readonly engine: EngineName;
  readonly accessLog: "text" | "json" | "off";
  readonly tracing: TracingConfig;
}

/** Everything that this program obeys. */
export interface Config {
  readonly proxy: ProxyConfig;
  readonly ports: Ports;
  readonly xds: ControlPlane;
  readonly ca: ControlPlane & { readonly certificateTtlMs: number };
  /** How this process proves itself to the control plane. A file is read again for every request. */
  readonly token: ControlPlaneToken;
  readonly node: { readonly id: string; readonly metadata: Readonly<Record<string, unknown>> };
  readonly trustDomain: string;
  readonly ipv6: boolean;
  readonly drainDeadlineMs: number;
  readonly workerThreads: number;
  readonly logFilter: string;
  readonly logFormat: "plain" | "json";
  readonly meshVersion: string;
}
