/** Routes of HTTP requests: one model for HTTPRoute, GRPCRoute and both Envoy profiles (waypoint contract 2.2, controller contract 5). */
import type { Pattern, TextMatch } from "./text-match.ts";

/** The routes of one port of one service, in the order of precedence: the first that matches is taken. */
export interface RouteTable {
  /** `inbound-vip|<port>|http|<hostname>` (waypoint contract 2.3). */
  readonly name: string;
  readonly virtualHosts: readonly VirtualHost[];
}

export interface VirtualHost {
  readonly name: string;
  /** `*`, `*.suffix`, `prefix.*` or a whole authority, with or without port. The longest match is taken. */
  readonly domains: readonly string[];
  readonly routes: readonly HttpRoute[];
}

export interface HttpRoute {
  /** In logs and metrics: the rule's name, or `<namespace>.<route>.<index>`. */
  readonly name: string;
  readonly match: RouteMatch;
  readonly action: RouteAction;
  readonly requestHeaders: HeaderChanges;
  readonly responseHeaders: HeaderChanges;
}

/** All that is set must hold. */
export interface RouteMatch {
  readonly path: PathMatch;
  readonly method: string | undefined;
  readonly headers: readonly HeaderMatch[];
  readonly query: readonly QueryMatch[];
  /** Only requests whose content-type is gRPC. */
  readonly grpc: boolean;
}

export type PathMatch =
  | { readonly kind: "exact"; readonly value: string }
  /** By path elements: `/a` matches `/a`, `/a/` and `/a/b`, not `/ab`. */
  | { readonly kind: "path-prefix"; readonly value: string }
  /** By characters; `/` matches everything. */
  | { readonly kind: "prefix"; readonly value: string }
  | { readonly kind: "regex"; readonly pattern: Pattern };

export interface HeaderMatch {
  readonly name: string;
  /** `present`: whatever the value. */
  readonly value: TextMatch | { readonly kind: "present" };
  readonly invert: boolean;
}

export interface QueryMatch {
  readonly name: string;
  readonly value: TextMatch | { readonly kind: "present" };
}

/** In this order: set, add, remove. */
export interface HeaderChanges {
  readonly set: readonly HeaderValue[];
  readonly add: readonly HeaderValue[];
  readonly remove: readonly string[];
}

export interface HeaderValue {
  readonly name: string;
  readonly value: string;
}

export type RouteAction =
  | ForwardAction
  | { readonly kind: "redirect"; readonly redirect: Redirect }
  /** A status without an upstream: 500 for a rule without a usable backend. */
  | { readonly kind: "respond"; readonly status: number; readonly body: string };

export interface ForwardAction {
  readonly kind: "forward";
  /** Weights are relative; never empty, and not all 0. */
  readonly backends: readonly WeightedBackend[];
  /** The whole exchange, milliseconds; undefined: no limit. */
  readonly timeoutMs: number | undefined;
  readonly retry: RetryPolicy | undefined;
  readonly rewrite: Rewrite | undefined;
  readonly mirrors: readonly Mirror[];
}

export interface WeightedBackend {
  readonly cluster: string;
  readonly weight: number;
  readonly requestHeaders: HeaderChanges;
  readonly responseHeaders: HeaderChanges;
}

export type RetryCondition =
  | "connect-failure"
  | "refused-stream"
  | "reset"
  | "gateway-error"
  | "5xx"
  | "retriable-4xx"
  | "retriable-status-codes"
  | GrpcRetryCondition;
export type GrpcRetryCondition = "cancelled" | "deadline-exceeded" | "internal" | "resource-exhausted" | "unavailable";

export interface RetryPolicy {
  readonly on: readonly RetryCondition[];
  /** Beyond the first try. */
  readonly attempts: number;
  /** Used with `retriable-status-codes`. */
  readonly statusCodes: readonly number[];
  readonly perTryTimeoutMs: number | undefined;
  /** Exponential with full jitter between these. */
  readonly backoff: { readonly baseMs: number; readonly maxMs: number };
}

export interface Rewrite {
  readonly authority: string | undefined;
  readonly path: PathChange | undefined;
}

export type PathChange =
  | { readonly kind: "full"; readonly value: string }
  /** Replaces what the route's prefix matched. */
  | { readonly kind: "prefix"; readonly value: string }
  | { readonly kind: "regex"; readonly pattern: Pattern; readonly substitution: string };

export interface Redirect {
  readonly scheme: string | undefined;
  readonly hostname: string | undefined;
  /** Undefined keeps the request's port unless the scheme changes. */
  readonly port: number | undefined;
  readonly path: PathChange | undefined;
  readonly status: 301 | 302 | 303 | 307 | 308;
}

export interface Mirror {
  readonly cluster: string;
  /** Share of requests, 0 to 1. */
  readonly fraction: number;
}

export const noHeaderChanges: HeaderChanges = { set: [], add: [], remove: [] };
