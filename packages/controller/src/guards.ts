/**
 * No way around a waypoint (architecture 7.3): where one enforces request policies for a workload, the workload's own ztunnel lets nobody but
 * that waypoint in, on the ports concerned. The policy's name is what a refused client's log line shows.
 */
import { createHash } from "node:crypto";
import { type AuthorizationPolicy, emptyMatch, type PolicyMatch, type PolicyRule } from "@fairway/model";
import { annotation } from "./labels.ts";
import type { Waypoint } from "./waypoints.ts";

export interface GuardedPort {
  /** Of the workload; undefined for all of them. */
  readonly port: number | undefined;
  readonly waypoint: GuardingWaypoint;
}

export type GuardingWaypoint = Pick<Waypoint, "namespace" | "name" | "serviceAccount">;

const hashLength = 8;
const maxNamed = 3;

/** Set on a Service, a Pod or a Namespace to let traffic past its waypoint. */
export function mayBypass(...objects: readonly ({ readonly metadata: { readonly annotations?: Readonly<Record<string, string>> } } | undefined)[]): boolean {
  return objects.some((object) => object?.metadata.annotations?.[annotation.allowWaypointBypass]?.toLowerCase() === "true");
}

/** One policy for all that is guarded alike in a namespace; undefined when nothing is. */
export function guardPolicy(namespace: string, guarded: readonly GuardedPort[], trustDomain: string): AuthorizationPolicy | undefined {
  if (guarded.length === 0) return undefined;
  const everywhere = identities(
    guarded.filter(({ port }) => port === undefined),
    trustDomain,
  );
  const ports = [...new Set(guarded.flatMap(({ port }) => port ?? []))].sort((a, b) => a - b);
  const rules: PolicyRule[] = ports.map((port) => {
    const admitted = identities(
      guarded.filter((entry) => entry.port === port || entry.port === undefined),
      trustDomain,
    );
    return deny({ destinationPorts: [port] }, admitted);
  });
  // A port that several waypoints serve admits them all; the other ports only those that serve the whole workload.
  if (everywhere.length > 0) rules.push(deny({ notDestinationPorts: ports }, everywhere));
  return { name: nameOf(guarded, rules), namespace, scope: "workload-selector", action: "deny", rules, dryRun: false };
}

function deny(ports: Partial<PolicyMatch>, admitted: readonly string[]): PolicyRule {
  const notPrincipals = admitted.map((value) => ({ kind: "exact", value }) as const);
  return { clauses: [{ matches: [{ ...emptyMatch, notPrincipals, ...ports }] }] };
}

function identities(guarded: readonly GuardedPort[], trustDomain: string): readonly string[] {
  return [...new Set(guarded.map(({ waypoint }) => `${trustDomain}/ns/${waypoint.namespace}/sa/${waypoint.serviceAccount}`))].sort();
}

/** With underscores, which no object of Kubernetes has in its name: it collides with nobody's policy. */
function nameOf(guarded: readonly GuardedPort[], rules: readonly PolicyRule[]): string {
  const names = [...new Set(guarded.map(({ waypoint }) => `${waypoint.name}.${waypoint.namespace}`))].sort();
  const hash = createHash("sha256").update(JSON.stringify(rules)).digest("hex").slice(0, hashLength);
  return `must_go_through_waypoint_${names.slice(0, maxNamed).join("_or_")}_${hash}`;
}
