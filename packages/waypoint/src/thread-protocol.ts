/**
 * What the main thread and a thread that carries traffic say to each other: calls with their answers, news for the thread, and what the
 * thread says of itself. Everything here is plain data: it crosses by structured clone.
 */
import type { SnapshotChange } from "@fairway/model";
import type { CertificateParts } from "@fairway/pki";
import type { MetricReading } from "@fairway/runtime";
import type { WaypointResources } from "@fairway/xds";
import type { ProxyConfig } from "./config.ts";
import type { ClusterDump } from "./config-dump.ts";

/** What a thread is told at its start. */
export interface ThreadSettings {
  /** From 1. */
  readonly thread: number;
  readonly config: ProxyConfig;
  readonly logFormat: "plain" | "json";
  readonly logFilter: string;
}

/** What can be asked of a thread, and the answers. */
export interface ThreadCalls {
  /** Answered with the port. */
  readonly listen: { readonly ask: undefined; readonly answer: number };
  /** Takes nothing new; answered when the last request is over. */
  readonly drain: { readonly ask: undefined; readonly answer: undefined };
  /** Requests and connections under way. */
  readonly active: { readonly ask: undefined; readonly answer: number };
  readonly metrics: { readonly ask: undefined; readonly answer: MetricReading };
  readonly clusters: { readonly ask: undefined; readonly answer: readonly ClusterDump[] };
  /** Answered after every log line and span of before was handed over. */
  readonly flush: { readonly ask: undefined; readonly answer: undefined };
}

/** What a thread is told. */
export type ThreadNews =
  | { readonly kind: "resources"; readonly change: WaypointResources }
  | { readonly kind: "mesh"; readonly change: SnapshotChange }
  | { readonly kind: "synced"; readonly synced: boolean }
  | { readonly kind: "certificate"; readonly parts: CertificateParts | undefined }
  | { readonly kind: "log-filter"; readonly expression: string }
  | { readonly kind: "lines-written" };

/** What a thread says besides its answers. */
export interface ThreadSpeech {
  readonly kind: "lines";
  readonly text: string;
}
