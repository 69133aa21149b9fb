/** What is measured, and the words between the bench and its load generator. */

export interface Ports {
  readonly echo: number;
  readonly sink: number;
  readonly source: number;
}

export type LoadRequest =
  | { readonly kind: "throughput"; readonly direction: "up" | "down"; readonly connections: number; readonly port: number; readonly ms: number }
  | { readonly kind: "requests"; readonly connections: number; readonly port: number; readonly ms: number }
  | { readonly kind: "connects"; readonly concurrency: number; readonly port: number; readonly ms: number }
  | { readonly kind: "idle-open"; readonly connections: number; readonly port: number }
  | { readonly kind: "idle-close" };

export interface LoadResult {
  /** Bytes, requests or connections in the measured time. */
  readonly count: number;
  readonly seconds: number;
  readonly failures: number;
  /** Microseconds; requests only. */
  readonly latency?: { readonly p50: number; readonly p90: number; readonly p99: number };
}

export const requestBytes = 1024;
export const concurrency = 32;
export const idleConnections = { from: 200, to: 1_000 };
