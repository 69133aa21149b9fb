/** L4 authorization policies. Mirrors istio.security.Authorization (ztunnel contract 4.2 and 6). */
import type { Cidr, SocketAddress } from "./address.ts";
import type { SpiffeId } from "./identity.ts";

export type StringMatch =
  | { readonly kind: "exact"; readonly value: string }
  | { readonly kind: "prefix"; readonly value: string }
  | { readonly kind: "suffix"; readonly value: string }
  | { readonly kind: "presence" };

export interface ServiceAccountMatch {
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** All fields that are set must hold; a positive list holds when one element matches, a negative one when none does. */
export interface PolicyMatch {
  readonly namespaces: readonly StringMatch[];
  readonly notNamespaces: readonly StringMatch[];
  /** Compared without the `spiffe://` prefix. */
  readonly principals: readonly StringMatch[];
  readonly notPrincipals: readonly StringMatch[];
  readonly sourceIps: readonly Cidr[];
  readonly notSourceIps: readonly Cidr[];
  readonly destinationIps: readonly Cidr[];
  readonly notDestinationIps: readonly Cidr[];
  readonly destinationPorts: readonly number[];
  readonly notDestinationPorts: readonly number[];
  readonly serviceAccounts: readonly ServiceAccountMatch[];
  readonly notServiceAccounts: readonly ServiceAccountMatch[];
}

/** Holds when any match does; with no matches it holds. */
export interface PolicyClause {
  readonly matches: readonly PolicyMatch[];
}

/** Holds when every clause does; with no clauses it holds. */
export interface PolicyRule {
  readonly clauses: readonly PolicyClause[];
}

export interface AuthorizationPolicy {
  readonly name: string;
  readonly namespace: string;
  readonly scope: "global" | "namespace" | "workload-selector";
  readonly action: "allow" | "deny";
  /** The policy matches when any rule does; with no rules it never matches. */
  readonly rules: readonly PolicyRule[];
  readonly dryRun: boolean;
  /** Stands in for a policy that could not be read: it lets nobody through that the policy might have kept out. */
  readonly refused?: true;
}

export const emptyMatch: PolicyMatch = {
  namespaces: [],
  notNamespaces: [],
  principals: [],
  notPrincipals: [],
  sourceIps: [],
  notSourceIps: [],
  destinationIps: [],
  notDestinationIps: [],
  destinationPorts: [],
  notDestinationPorts: [],
  serviceAccounts: [],
  notServiceAccounts: [],
};

/** What a policy is held against. */
export interface ConnectionFacts {
  /** The TCP peer. */
  readonly source: SocketAddress;
  /** The application's address and final port; never a VIP, never 15008. */
  readonly destination: SocketAddress;
  /** Undefined for plaintext. */
  readonly identity: SpiffeId | undefined;
}
