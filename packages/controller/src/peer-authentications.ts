/**
 * From PeerAuthentications to L4 policies (controller contract 4.5). Strictness is a DENY of callers without identity; it is inherited
 * mesh → namespace → workload, and the oldest object of a level decides. DISABLE is PERMISSIVE: ztunnel can always do mutual TLS.
 */
import type { PeerAuthentication } from "@fairway/kube";
import { type AuthorizationPolicy, emptyMatch, isPort, type PolicyKey, type PolicyMatch, policyKey } from "@fairway/model";
import { byAge, type Labels, matchesLabels } from "./labels.ts";

type Mode = "strict" | "permissive";

const staticStrictName = "istio_converted_static_strict";
const withoutIdentity: PolicyMatch = { ...emptyMatch, notPrincipals: [{ kind: "presence" }] };

/** Sent whenever any PeerAuthentication exists; workloads refer to it. */
export function staticStrictPolicy(rootNamespace: string): AuthorizationPolicy {
  return {
    name: staticStrictName,
    namespace: rootNamespace,
    scope: "workload-selector",
    action: "deny",
    rules: [{ clauses: [{ matches: [withoutIdentity] }] }],
    dryRun: false,
  };
}

/** What applies around a workload: everything of its namespace and of the root namespace. */
export interface PeerAuthenticationScope {
  readonly rootNamespace: string;
  readonly namespace: string;
  readonly inRoot: readonly PeerAuthentication[];
  readonly inNamespace: readonly PeerAuthentication[];
}

/** The policies that a workload must refer to. */
export function peerAuthenticationKeys(labels: Labels, scope: PeerAuthenticationScope): readonly PolicyKey[] {
  const own = workloadLevel(labels, scope);
  if (own !== undefined && portRules(own, scope) !== undefined) return [policyKey(scope.namespace, convertedName(own))];
  const mode = (own && modeOf(own)) ?? inheritedMode(scope);
  return mode === "strict" ? [policyKey(scope.rootNamespace, staticStrictName)] : [];
}

/** The policy of one PeerAuthentication whose ports differ from its mode; undefined when its mode says it all. */
export function convertPeerAuthentication(object: PeerAuthentication, scope: PeerAuthenticationScope): AuthorizationPolicy | undefined {
  const rules = portRules(object, scope);
  if (rules === undefined) return undefined;
  return { name: convertedName(object), namespace: scope.namespace, scope: "workload-selector", action: "deny", rules, dryRun: false };
}

function convertedName({ metadata }: PeerAuthentication): string {
  return `converted_peer_authentication_${metadata.name}`;
}

/** Only workload-level objects have ports; in the root namespace a selector means nothing. */
function portRules(object: PeerAuthentication, scope: PeerAuthenticationScope): AuthorizationPolicy["rules"] | undefined {
  if (!hasSelector(object) || scope.namespace === scope.rootNamespace) return undefined;
  const top = modeOf(object) ?? inheritedMode(scope);
  const differing = Object.entries(object.spec?.portLevelMtls ?? {})
    .map(([port, { mode } = {}]) => ({ port: Number(port), mode: readMode(mode) }))
    .filter(({ port, mode }) => isPort(port) && mode !== undefined && mode !== top)
    .map(({ port }) => port)
    .sort((a, b) => a - b);
  if (differing.length === 0) return undefined;
  if (top === "permissive") return differing.map((port) => ({ clauses: [{ matches: [{ ...withoutIdentity, destinationPorts: [port] }] }] }));
  const elsewhere = differing.map((port) => ({ matches: [{ ...emptyMatch, notDestinationPorts: [port] }] }));
  return [{ clauses: [{ matches: [withoutIdentity] }, ...elsewhere] }];
}

function workloadLevel(labels: Labels, { namespace, rootNamespace, inNamespace }: PeerAuthenticationScope): PeerAuthentication | undefined {
  if (namespace === rootNamespace) return undefined;
  return inNamespace.filter((object) => hasSelector(object) && matchesLabels(object.spec?.selector?.matchLabels ?? {}, labels)).sort(byAge)[0];
}

function inheritedMode({ inNamespace, inRoot }: PeerAuthenticationScope): Mode {
  const ofLevel = (objects: readonly PeerAuthentication[]): Mode | undefined => {
    const oldest = objects.filter((object) => !hasSelector(object)).sort(byAge)[0];
    return oldest && modeOf(oldest);
  };
  return ofLevel(inNamespace) ?? ofLevel(inRoot) ?? "permissive";
}

function hasSelector({ spec }: PeerAuthentication): boolean {
  return Object.keys(spec?.selector?.matchLabels ?? {}).length > 0;
}

function modeOf({ spec }: PeerAuthentication): Mode | undefined {
  return readMode(spec?.mtls?.mode);
}

/** Undefined inherits. A word that we do not know is strict: never weaker than what was meant. */
function readMode(mode: string | undefined): Mode | undefined {
  switch (mode) {
    case undefined:
    case "UNSET":
      return undefined;
    case "DISABLE":
    case "PERMISSIVE":
      return "permissive";
    default:
      return "strict";
  }
}
