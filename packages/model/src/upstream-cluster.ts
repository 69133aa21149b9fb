/** Clusters and their endpoints: where a waypoint or a proxyless client sends what a route chose (Envoy's CDS and EDS). */
import type { SocketAddress } from "./address.ts";
import type { Locality } from "./workload.ts";

export interface Cluster {
  /** `inbound-vip|<port>|<http|tcp>|<hostname>`, or `outbound|<port>||<hostname>` for services of others (waypoint contract 2.3). */
  readonly name: string;
  /** The service behind it, for telemetry. */
  readonly service: { readonly namespace: string; readonly hostname: string; readonly port: number };
  /** What the endpoints speak; `same`: whatever the client spoke. */
  readonly protocol: "same" | "http1" | "http2";
  readonly connectTimeoutMs: number;
  readonly loadBalancing: "round-robin" | "least-request" | "random";
  readonly limits: ClusterLimits;
  readonly ejection: Ejection | undefined;
}

/** Beyond these a request is refused at once (flag UO). */
export interface ClusterLimits {
  readonly maxConnections: number;
  readonly maxPendingRequests: number;
  readonly maxRequests: number;
  readonly maxRetries: number;
}

/** Passive ejection of an endpoint that fails (Envoy's outlier detection). */
export interface Ejection {
  /** Consecutive answers of 5xx, connect failures and resets; 0: never for these. */
  readonly consecutiveErrors: number;
  /** Consecutive 502, 503, 504 and local failures; 0: never for these. */
  readonly consecutiveGatewayErrors: number;
  readonly baseEjectionMs: number;
  readonly maxEjectionMs: number;
  /** Share of the endpoints that may be out at once, 0 to 100. */
  readonly maxEjectedPercent: number;
}

/** All endpoints of a cluster: what EDS carries. */
export interface ClusterEndpoints {
  readonly cluster: string;
  readonly localities: readonly LocalityEndpoints[];
}

export interface LocalityEndpoints {
  readonly locality: Locality;
  /** 0 is tried first; the next only when too few of it are healthy. */
  readonly priority: number;
  readonly weight: number;
  readonly endpoints: readonly Endpoint[];
}

export interface Endpoint {
  /** The application's address: the authority of the tunnel's CONNECT. */
  readonly address: SocketAddress;
  /** `hbone`: through the tunnel of the endpoint's node; `none`: plain TCP, for endpoints outside the mesh. */
  readonly tunnel: "hbone" | "none";
  /** Uid of the workload, so that a reused address never reaches an old connection; "" when unknown. */
  readonly workload: string;
  readonly health: "healthy" | "unhealthy" | "draining";
  readonly weight: number;
}

export const unlimited: ClusterLimits = { maxConnections: 2 ** 32 - 1, maxPendingRequests: 2 ** 32 - 1, maxRequests: 2 ** 32 - 1, maxRetries: 2 ** 32 - 1 };
export const defaultConnectTimeoutMs = 10_000;
