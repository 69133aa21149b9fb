/**
 * What the main thread and a thread that carries traffic say to each other. Everything here is plain data: it crosses by structured clone.
 * Calls have a number and are answered once; everything else is said and not answered. Messages arrive in the order in which they were sent.
 */
import type { SnapshotChange } from "@fairway/model";
import type { CertificateParts } from "@fairway/pki";
import { MeshError, type MetricReading, messageOf } from "@fairway/runtime";
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

/** An error without its class, which structured clone would drop. */
export interface PlainError {
  readonly code: string;
  readonly message: string;
}

/** What can be asked of a thread, and the answers. */
export interface ThreadCalls {
  /** Answered with the port. */
  readonly listen: number;
  /** Takes nothing new; answered when the last request is over. */
  readonly drain: undefined;
  /** Requests and connections under way. */
  readonly active: number;
  readonly metrics: MetricReading;
  readonly clusters: readonly ClusterDump[];
  /** Answered after every log line and span of before was handed over. */
  readonly flush: undefined;
}

export type ThreadCall = keyof ThreadCalls;

export type ToThread =
  | { readonly kind: "call"; readonly id: number; readonly call: ThreadCall }
  | { readonly kind: "resources"; readonly change: WaypointResources }
  | { readonly kind: "mesh"; readonly change: SnapshotChange }
  | { readonly kind: "synced"; readonly synced: boolean }
  | { readonly kind: "certificate"; readonly parts: CertificateParts | undefined }
  | { readonly kind: "log-filter"; readonly expression: string }
  | { readonly kind: "lines-written" };

export type ToMain =
  | { readonly kind: "ready" }
  | { readonly kind: "answer"; readonly id: number; readonly answer: unknown }
  | { readonly kind: "failure"; readonly id: number; readonly error: PlainError }
  | { readonly kind: "lines"; readonly text: string };

export function plainError(thrown: unknown): PlainError {
  const error = MeshError.from(thrown, "WAYPOINT_INTERNAL");
  return { code: error.code, message: messageOf(error) };
}

export function fromPlainError({ code, message }: PlainError): MeshError {
  return new MeshError(code, message);
}
