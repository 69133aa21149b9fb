/** What the waypoint's bench measures, and the words between it and its load generator. */
import type { AuthorityPem } from "@fairway/pki";

/** How a client reaches a proxy: mutual TLS, or a tunnel over it as ztunnel's. */
export type Carrier = "tls" | "hbone";

export interface TargetProxy {
  readonly carrier: Carrier;
  readonly port: number;
  /** Where HTTP/2 is spoken; the same port when the proxy tells them apart. */
  readonly http2Port: number;
}

export type WaypointLoad = { readonly authority: AuthorityPem; readonly target: TargetProxy } & (
  | { readonly kind: "requests"; readonly connections: number; readonly ms: number }
  /** Open loop: sent when due, whether or not earlier ones were answered; latency counts from when it was due. */
  | { readonly kind: "paced"; readonly connections: number; readonly perSecond: number; readonly ms: number }
  | { readonly kind: "grpc"; readonly connections: number; readonly streams: number; readonly ms: number }
  /** One request, to see whether anybody answers. */
  | { readonly kind: "probe" }
  | { readonly kind: "body"; readonly direction: "up" | "down"; readonly bytes: number }
);

export interface WaypointLoadResult {
  /** Requests, or bytes of bodies. */
  readonly count: number;
  readonly seconds: number;
  readonly failures: number;
  /** Microseconds. */
  readonly latency?: { readonly p50: number; readonly p90: number; readonly p99: number };
}

export const bodyBytes = 1024;
export const largeBodyBytes = 100_000_000;
export const connectionCounts: readonly number[] = [1, 32, 256];
export const pacedPerSecond = 1_000;
/** The name of the service that is asked for, and its virtual address in the waypoint's configuration. */
export const service = { hostname: "app.bench.svc.cluster.local", vip: "10.96.0.1", port: 8080, grpcPort: 9090 } as const;
