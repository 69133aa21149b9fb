/**
 * From PeerAuthentications to L4 policies (controller contract 4.5). Strictness is a DENY of callers without identity; it is inherited
 * mesh → namespace → workload, and the oldest object of a level decides. DISABLE is PERMISSIVE: ztunnel can always do mutual TLS.
 * An object with anything in it that cannot be read is STRICT as a whole, without exceptions: what was not understood may be the mode, the port or
 * the selector that was to make it so, and strictness is the one answer that never opens anything.
 */
import type { ConditionWish, PeerAuthentication } from "@fairway/kube";
import { type AuthorizationPolicy, emptyMatch, isPort, type PolicyKey, type PolicyMatch, policyKey } from "@fairway/model";
import { byAge, type Labels, matchesLabels } from "./labels.ts";
import { isRecord, listProblems, unknownFields } from "./unknown-fields.ts";

type Mode = "strict" | "permissive";

const specFields: ReadonlySet<string> = new Set(["selector", "mtls", "portLevelMtls"]);
const selectorFields: ReadonlySet<string> = new Set(["matchLabels"]);
const mtlsFields: ReadonlySet<string> = new Set(["mode"]);
const modes: ReadonlySet<unknown> = new Set([undefined, null, "UNSET", "DISABLE", "PERMISSIVE", "STRICT"]);
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
  if (unreadable(object).length > 0) return undefined;
  const top = modeOf(object) ?? inheritedMode(scope);
  const differing = Object.entries(object.spec?.portLevelMtls ?? {})
    .map(([port, entry]: [string, { mode?: string } | null]) => ({ port: Number(port), mode: readMode(entry?.mode) }))
    .filter(({ mode }) => mode !== undefined && mode !== top)
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

/** What its author should know; undefined when all of it can be read. */
export function complaintAbout(object: PeerAuthentication): ConditionWish | undefined {
  const problems = unreadable(object);
  if (problems.length === 0) return undefined;
  const message = `${listProblems(problems)}; until that is corrected the object counts as STRICT, without exceptions for ports`;
  return { type: "ZtunnelAccepted", status: "False", reason: "Invalid", message };
}

/** What cannot be read, in words. Nothing is assumed of its shape: definitions that others installed may let anything in. */
function unreadable(object: PeerAuthentication): readonly string[] {
  const spec: unknown = object.spec;
  const problems = [...unknownFields(spec, { path: "spec", known: specFields })];
  if (!isRecord(spec)) return problems;
  const { selector, mtls, portLevelMtls } = spec;
  problems.push(...unknownFields(selector, { path: "spec.selector", known: selectorFields }), ...unreadableMtls(mtls, "spec.mtls"));
  if (portLevelMtls !== undefined && portLevelMtls !== null && !isRecord(portLevelMtls)) problems.push("spec.portLevelMtls: is not an object");
  for (const [port, entry] of Object.entries(isRecord(portLevelMtls) ? portLevelMtls : {})) {
    if (!isPort(Number(port))) problems.push(`spec.portLevelMtls.${port}: is not a port`);
    problems.push(...unreadableMtls(entry, `spec.portLevelMtls.${port}`));
  }
  return problems;
}

function unreadableMtls(value: unknown, path: string): readonly string[] {
  const problems = unknownFields(value, { path, known: mtlsFields });
  const mode = isRecord(value) ? value["mode"] : undefined;
  return modes.has(mode) ? problems : [...problems, `${path}.mode: ${JSON.stringify(mode)} is none of UNSET, DISABLE, PERMISSIVE, STRICT`];
}

function modeOf(object: PeerAuthentication): Mode | undefined {
  return unreadable(object).length > 0 ? "strict" : readMode(object.spec?.mtls?.mode);
}

/** Undefined inherits. */
function readMode(mode: string | null | undefined): Mode | undefined {
  switch (mode) {
    case undefined:
    case null:
    case "UNSET":
      return undefined;
    case "DISABLE":
    case "PERMISSIVE":
      return "permissive";
    default:
      return "strict";
  }
}
