/** L7 policies as the waypoint holds them: expression trees, as Envoy's RBAC has them (waypoint contract 2.7), and token rules. */
import type { Cidr } from "./address.ts";
import type { TextMatch } from "./text-match.ts";

export interface RequestPolicy {
  readonly namespace: string;
  readonly name: string;
  readonly action: "allow" | "deny" | "audit";
  /** Says what it would do, and does nothing. */
  readonly dryRun: boolean;
  /** The policy matches when any rule does; with no rules it never matches. */
  readonly rules: readonly RequestCondition[];
}

export type RequestCondition =
  | { readonly kind: "any" }
  | { readonly kind: "all"; readonly of: readonly RequestCondition[] }
  | { readonly kind: "some"; readonly of: readonly RequestCondition[] }
  | { readonly kind: "not"; readonly of: RequestCondition }
  /** The SPIFFE id, scheme included; never holds without an identity. */
  | { readonly kind: "principal"; readonly match: TextMatch }
  | { readonly kind: "source-ip"; readonly range: Cidr }
  | { readonly kind: "remote-ip"; readonly range: Cidr }
  | { readonly kind: "destination-ip"; readonly range: Cidr }
  /** Ports `from` to `to`, both included. */
  | { readonly kind: "destination-port"; readonly from: number; readonly to: number }
  /** Holds when any value of a repeated field does. `:method` and `:authority` count as headers. */
  | { readonly kind: "header"; readonly name: string; readonly match: TextMatch | { readonly kind: "present" } }
  /** The path without its query. */
  | { readonly kind: "path"; readonly match: TextMatch }
  | { readonly kind: "server-name"; readonly match: TextMatch }
  /** A claim of the verified token, by its path of keys; holds for a list when one element does. */
  | { readonly kind: "claim"; readonly path: readonly string[]; readonly match: TextMatch | { readonly kind: "present" } };

/** One issuer a token may come from (controller contract 4.8). Several rules: any valid token passes; one that is present and invalid never does. */
export interface TokenRule {
  /** `<namespace>/<name>` of the RequestAuthentication, for logs. */
  readonly origin: string;
  readonly issuer: string;
  /** Empty: any audience. */
  readonly audiences: readonly string[];
  readonly keys: { readonly kind: "inline"; readonly jwks: string } | { readonly kind: "remote"; readonly uri: string; readonly timeoutMs: number };
  readonly fromHeaders: readonly { readonly name: string; readonly prefix: string }[];
  readonly fromParams: readonly string[];
  readonly fromCookies: readonly string[];
  readonly forwardOriginalToken: boolean;
  /** Header that carries the payload (base64url JSON) upstream. */
  readonly outputPayloadToHeader: string | undefined;
  readonly outputClaimToHeaders: readonly { readonly header: string; readonly claim: string }[];
}

/**
 * A remote key set under this path is the issuer's discovery document (OpenID Connect Discovery 1.0, 4), which says where its keys are: what a
 * rule without keys comes to.
 */
export const discoveryPath = "/.well-known/openid-configuration";

export interface RequestVerdict {
  readonly allowed: boolean;
  /** `<namespace>/<name>` and the index of the rule that decided; undefined when nothing did. */
  readonly policy: { readonly key: string; readonly rule: number } | undefined;
  readonly reason: "allow-all" | "allowed" | "denied-by-policy" | "no-allow-matched";
  /** What policies in dry run and of action audit would have said. */
  readonly observed: readonly { readonly key: string; readonly action: "allow" | "deny" | "audit" }[];
}
