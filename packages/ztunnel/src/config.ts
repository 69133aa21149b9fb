/** What a ztunnel is told at its start: parsed once by `environment.ts`, frozen, passed down. No file but these two knows a variable's name. */
import type { EngineName } from "@fairway/hbone";
import type { NetworkId, SocketAddress } from "@fairway/model";
import type { ControlPlaneRoots, ControlPlaneToken } from "@fairway/pki";

/** A pod as the node agent and the mesh know it. */
export interface PodName {
  readonly namespace: string;
  readonly name: string;
  readonly serviceAccount: string;
}

/** One control plane service. */
export interface ControlPlane {
  /** `https://host:port`; undefined disables it. */
  readonly address: string | undefined;
  /** Whose signature proves it. */
  readonly roots: ControlPlaneRoots;
  /** A second server name that is accepted. */
  readonly altHostname: string | undefined;
  /** Extra gRPC metadata. */
  readonly headers: ReadonlyMap<string, string>;
}

/** A file or an inline document in place of, or beside, the control plane (contract 3.6). */
export type LocalMesh = { readonly kind: "file"; readonly path: string } | { readonly kind: "inline"; readonly yaml: string };

/** TCP keepalive as the kernel takes it. */
export interface Keepalive {
  readonly timeMs: number;
  readonly intervalMs: number;
  readonly retries: number;
  /** Longest time that sent bytes may stay unacknowledged. */
  readonly userTimeoutMs?: number | undefined;
}

/** Ports of contract 2.1; parameters, so that tests need not own the real ones. */
export interface Ports {
  readonly outbound: number;
  readonly plaintext: number;
  readonly hbone: number;
  readonly socks5: number;
  readonly httpConnect: number;
  readonly admin: number;
  readonly metrics: number;
  readonly readiness: number;
}

/** What the DNS proxy of a pod is told (contract 8). */
export interface DnsConfig {
  /** TCP and UDP alike. Addresses and not names: a pod without IPv6 does without those of IPv6. */
  readonly listen: readonly { readonly host: string; readonly port: number }[];
  readonly clusterDomain: string;
  /** What a client's resolver appends; undefined for what Kubernetes makes it append by the client's namespace. */
  readonly searchDomains: readonly string[] | undefined;
  readonly preferredNamespace: string | undefined;
  /** Whom to ask what is not the mesh's. */
  readonly upstreams: readonly SocketAddress[];
  /** Whether IPv6 addresses are given out. */
  readonly ipv6: boolean;
}

/** What every pod's proxy is told. Plain data: it may cross to another thread. */
export interface ProxyConfig {
  readonly network: NetworkId;
  readonly nodeName: string | undefined;
  /** The control plane is asked about what connections need, and about nothing else. */
  readonly onDemand: boolean;
  readonly ports: Ports;
  /** Where pod listeners bind; the wildcard unless a test says otherwise. */
  readonly listenHost: string;
  /** Where the listeners bind that an application is told of; loopback, because whoever reaches them speaks as the pod. */
  readonly askingHost: string;
  /** SO_MARK on every socket in a pod, 0 for none. */
  readonly mark: number;
  readonly reusePort: boolean;
  /** Keep the client's source address toward the application: must, may or never (ENABLE_ORIG_SRC). */
  readonly keepSource: "required" | "best-effort" | "never";
  readonly keepalive: Keepalive | undefined;
  readonly maxStreamsPerTunnel: number;
  readonly tunnelIdleMs: number;
  readonly streamWindow: number;
  readonly connectionWindow: number;
  readonly frameSize: number;
  /** What frames the tunnels. */
  readonly engine: EngineName;
  /** How long a connection may stay half-closed without one byte moving (architecture 7.7). */
  readonly halfClosedMs: number;
  readonly localhostAppTunnel: boolean;
  /** Send response baggage, and trust request baggage for labels. */
  readonly baggage: boolean;
  readonly clusterId: string;
  readonly policyDecisionsAtInfo: boolean;
  /** Connections accepted and not yet joined to their other end, per direction and pod. Past it they are refused at once. */
  readonly maxPendingConnections: number;
  /** TLS handshakes that a pod's peers may have open at once; each costs far more than a connection. */
  readonly maxPendingHandshakes: number;
  /** Inbound tunnels without a stream that a thread keeps, of everybody and of one peer; the oldest beyond are sent away. */
  readonly maxIdleTunnels: number;
  readonly maxIdleTunnelsOfPeer: number;
  /** How long an inbound tunnel may be without a stream. */
  readonly inboundIdleMs: number;
  /** Undefined: DNS is not captured. */
  readonly dns: DnsConfig | undefined;
}

/** Everything of contract 2.2 that this program obeys. */
export interface Config {
  readonly mode: { readonly kind: "shared"; readonly zdsSocket: string } | { readonly kind: "dedicated"; readonly pod: PodName };
  readonly proxyEnabled: boolean;
  readonly socks5Enabled: boolean;
  readonly httpConnectEnabled: boolean;
  readonly proxy: ProxyConfig;
  readonly clusterDomain: string;
  readonly trustDomain: string;
  /** Where policies for the whole mesh live: this process's own namespace; undefined when it is not told. */
  readonly rootNamespace: string | undefined;
  /** The ztunnel's own pod, when it serves HBONE for itself (contract 5B.5). */
  readonly self: PodName | undefined;
  readonly xds: ControlPlane & { readonly local: LocalMesh | undefined };
  readonly ca: ControlPlane & {
    readonly fake: boolean /** Directory of the files of a CA that this process is itself. */;
    readonly localPath: string | undefined;
    readonly certificateTtlMs: number;
  };
  /** How this process proves itself to the control plane. A file is read again for every request. */
  readonly token: ControlPlaneToken;
  readonly node: { readonly id: string; readonly metadata: Readonly<Record<string, unknown>> };
  readonly crlPath: string | undefined;
  readonly tls12: boolean;
  readonly postQuantumOnly: boolean;
  readonly ipv6: boolean;
  readonly drainDeadlineMs: number;
  readonly workerThreads: number;
  readonly logFilter: string;
  readonly logFormat: "plain" | "json";
  readonly meshVersion: string;
}
