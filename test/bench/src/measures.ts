/** What is measured, and the words between the bench and its load generator. */

export interface Ports {
  readonly echo: number;
  readonly sink: number;
  readonly source: number;
  /** An echo whose every connection makes a handshake of its own, without resumption; absent where the arm has none. */
  readonly fresh?: number;
}

/** `host` is where the arm listens: the loopback, or the far end of the wire for `direct` under --netem. */
export type LoadRequest = { readonly host: string } & LoadKind;

type LoadKind =
  | {
      readonly kind: "throughput";
      readonly direction: "up" | "down";
      readonly connections: number;
      readonly port: number;
      readonly ms: number;
      readonly warmUpMs: number;
    }
  | { readonly kind: "requests"; readonly connections: number; readonly port: number; readonly ms: number }
  | { readonly kind: "paced"; readonly connections: number; readonly perSecond: number; readonly port: number; readonly ms: number }
  | { readonly kind: "connects"; readonly concurrency: number; readonly port: number; readonly ms: number }
  | { readonly kind: "hold"; readonly connections: number; readonly atOnce: number; readonly port: number }
  | { readonly kind: "held"; readonly skip: number }
  | { readonly kind: "release"; readonly keep: number }
  | { readonly kind: "probe"; readonly port: number };

export interface LoadResult {
  /** Bytes, requests or connections in the measured time. */
  readonly count: number;
  readonly seconds: number;
  readonly failures: number;
  /** Microseconds; requests only. */
  readonly latency?: Latency;
}

export interface Latency {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
}

export const shares: readonly (keyof Latency)[] = ["p50", "p90", "p99"];

/** Of milliseconds, in microseconds. */
export function percentiles(milliseconds: number[]): Latency {
  milliseconds.sort((a, b) => a - b);
  const at = (share: number): number => (milliseconds[Math.floor(milliseconds.length * share)] ?? Number.NaN) * 1000;
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99) };
}

export const requestBytes = 1024;
export const concurrency = 32;
/** The open loop: so many requests a second whatever the answers do, over so many connections in turn. */
export const pace = { perSecond: 1_000, connections: 16 };
