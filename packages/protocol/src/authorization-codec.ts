/**
 * istio.security.Authorization to and from the model (ztunnel contract 4.2). Where the reference drops a matcher that it cannot read, we
 * refuse the whole policy: an ALLOW with one condition less lets in more than was written.
 */
import { type AuthorizationPolicy, type Cidr, ipToBytes, type PolicyMatch, type StringMatch } from "@fairway/model";
import { decodeCidr } from "./gateway-codec.ts";
import * as wire from "./gen/istio/security/authorization.ts";
import { readEnum, readMessage, readPort, requireField } from "./wire.ts";

export const authorizationTypeUrl = "type.googleapis.com/istio.security.Authorization";

const scopes = ["global", "namespace", "workload-selector"] as const;
const actions = ["allow", "deny"] as const;

export function encodeAuthorization(policy: AuthorizationPolicy): Uint8Array {
  const message: wire.Authorization = {
    name: policy.name,
    namespace: policy.namespace,
    scope: scopes.indexOf(policy.scope) as wire.Scope,
    action: actions.indexOf(policy.action) as wire.Action,
    rules: policy.rules.map(({ clauses }) => ({ clauses: clauses.map(({ matches }) => ({ matches: matches.map(matchToWire) })) })),
    dryRun: policy.dryRun,
    extensions: [],
  };
  return wire.Authorization.encode(message).finish();
}

/** Throws ProtocolDecodeError and nothing else. */
export function decodeAuthorization(bytes: Uint8Array): AuthorizationPolicy {
  const message = readMessage(wire.Authorization, "istio.security.Authorization", bytes);
  return {
    name: requireField("name", message.name),
    namespace: message.namespace,
    scope: readEnum("scope", scopes, message.scope),
    action: readEnum("action", actions, message.action),
    rules: message.rules.map(({ clauses }) => ({ clauses: clauses.map(({ matches }) => ({ matches: matches.map(matchFromWire) })) })),
    dryRun: message.dryRun,
  };
}

/** What can still be read of bytes that `decodeAuthorization` refused. Never throws. */
export function salvageAuthorization(bytes: Uint8Array): Partial<Pick<AuthorizationPolicy, "scope" | "action" | "dryRun">> {
  let message: wire.Authorization;
  try {
    message = readMessage(wire.Authorization, "istio.security.Authorization", bytes);
  } catch {
    return {};
  }
  const scope = scopes.find((_, number) => number === message.scope);
  const action = actions.find((_, number) => number === message.action);
  return { ...(scope === undefined ? {} : { scope }), ...(action === undefined ? {} : { action }), dryRun: message.dryRun };
}

function matchFromWire(match: wire.Match): PolicyMatch {
  const ports = (field: string, values: readonly number[]) => values.map((port) => readPort(field, port));
  return {
    namespaces: match.namespaces.map(stringFromWire),
    notNamespaces: match.notNamespaces.map(stringFromWire),
    principals: match.principals.map(stringFromWire),
    notPrincipals: match.notPrincipals.map(stringFromWire),
    sourceIps: match.sourceIps.map(cidrFromWire),
    notSourceIps: match.notSourceIps.map(cidrFromWire),
    destinationIps: match.destinationIps.map(cidrFromWire),
    notDestinationIps: match.notDestinationIps.map(cidrFromWire),
    destinationPorts: ports("destination_ports", match.destinationPorts),
    notDestinationPorts: ports("not_destination_ports", match.notDestinationPorts),
    serviceAccounts: match.serviceAccounts.map(({ namespace, serviceAccount }) => ({ namespace, serviceAccount })),
    notServiceAccounts: match.notServiceAccounts.map(({ namespace, serviceAccount }) => ({ namespace, serviceAccount })),
  };
}

function matchToWire(match: PolicyMatch): wire.Match {
  return {
    namespaces: match.namespaces.map(stringToWire),
    notNamespaces: match.notNamespaces.map(stringToWire),
    principals: match.principals.map(stringToWire),
    notPrincipals: match.notPrincipals.map(stringToWire),
    sourceIps: match.sourceIps.map(cidrToWire),
    notSourceIps: match.notSourceIps.map(cidrToWire),
    destinationIps: match.destinationIps.map(cidrToWire),
    notDestinationIps: match.notDestinationIps.map(cidrToWire),
    destinationPorts: match.destinationPorts,
    notDestinationPorts: match.notDestinationPorts,
    serviceAccounts: match.serviceAccounts,
    notServiceAccounts: match.notServiceAccounts,
    extensions: [],
  };
}

function stringFromWire({ matchType }: wire.StringMatch): StringMatch {
  const match = requireField("match_type", matchType);
  return match.$case === "presence" ? { kind: "presence" } : { kind: match.$case, value: match.value };
}

function stringToWire(match: StringMatch): wire.StringMatch {
  return { matchType: match.kind === "presence" ? { $case: "presence", value: {} } : { $case: match.kind, value: match.value } };
}

function cidrFromWire({ address, length }: wire.Address): Cidr {
  return decodeCidr("address", address, length);
}

function cidrToWire({ ip, length }: Cidr): wire.Address {
  return { address: ipToBytes(ip), length };
}
