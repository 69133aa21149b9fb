/**
 * What the main thread and a thread that carries traffic say to each other: calls with their answers, news for the thread, and what the
 * thread says of itself. Everything here is plain data: it crosses by structured clone.
 */
import type { NameAnswer, SpiffeId } from "@fairway/model";
import type { RevocationList } from "@fairway/pki";
import type { MetricReading, PlainError, ProfileRequest } from "@fairway/runtime";
import type { CertificateNews } from "./certificate-desk.ts";
import type { PodName, ProxyConfig } from "./config.ts";
import type { ConnectionSummary } from "./connections.ts";
import type { NameRequest } from "./mesh-names.ts";
import type { MeshQuestion } from "./mesh-question.ts";
import type { MeshUpdate } from "./mesh-update.ts";
import type { ListenerKind } from "./pod-proxy.ts";

/** What a thread is told at its start. */
export interface ThreadSettings {
  /** From 1. */
  readonly thread: number;
  readonly config: ProxyConfig;
  readonly tls: { readonly allowTls12: boolean; readonly postQuantumOnly: boolean };
  /** Undefined when nobody asks about revocation. */
  readonly revocations: readonly RevocationList[] | undefined;
  readonly logFormat: "plain" | "json";
  readonly logFilter: string;
}

/** A pod to serve; `proxy` is the number it goes by from then on. */
export interface PodOrder {
  readonly proxy: number;
  readonly uid: string;
  readonly pod: PodName;
  /** Descriptor of the network namespace in this process, open until the call is answered; undefined for the process's own. */
  readonly namespaceFd: number | undefined;
  readonly kinds: readonly ListenerKind[];
  readonly overrides: Partial<ProxyConfig>;
}

export interface PodConnections {
  readonly inbound: readonly ConnectionSummary[];
  readonly outbound: readonly ConnectionSummary[];
}

/** What can be asked of a thread, and the answers. */
export interface ThreadCalls {
  readonly start: { readonly ask: PodOrder; readonly answer: undefined };
  /** Ends what lives, with the reason in its log. */
  readonly stop: { readonly ask: { readonly proxy: number; readonly reason: PlainError }; readonly answer: undefined };
  /** Takes nothing new; answered when the last connection of the pod ended. */
  readonly drain: { readonly ask: { readonly proxy: number }; readonly answer: undefined };
  readonly connections: { readonly ask: { readonly proxy: number }; readonly answer: PodConnections };
  /** Connections that live, by proxy. */
  readonly sizes: { readonly ask: undefined; readonly answer: ReadonlyMap<number, number> };
  readonly metrics: { readonly ask: undefined; readonly answer: MetricReading };
  /** Of the thread itself, as JSON text. */
  readonly profile: { readonly ask: ProfileRequest; readonly answer: string };
  /** Answered after every log line of before was said. */
  readonly flush: { readonly ask: undefined; readonly answer: undefined };
}

/** What a thread is told. */
export type ThreadNews =
  | { readonly kind: "mesh"; readonly update: MeshUpdate }
  | { readonly kind: "name"; readonly id: number; readonly answer: NameAnswer }
  | { readonly kind: "certificate"; readonly news: CertificateNews }
  | { readonly kind: "revocations"; readonly lists: readonly RevocationList[] }
  | { readonly kind: "log-filter"; readonly expression: string }
  | { readonly kind: "lines-written" };

/** What a thread says besides its answers. */
export type ThreadSpeech =
  | { readonly kind: "ask-mesh"; readonly question: MeshQuestion }
  | { readonly kind: "forget-mesh"; readonly keys: readonly string[] }
  | { readonly kind: "ask-name"; readonly id: number; readonly request: NameRequest }
  | { readonly kind: "ask-certificate"; readonly identity: SpiffeId }
  | { readonly kind: "lines"; readonly text: string };
