/** Whether a route may send requests where it points: the Service is there, has the port, and its namespace lets others refer to it. */
import type { Service as KubeService, ReferenceGrantObject, RouteBackendReference } from "@fairway/kube";
import type { RouteProblem, RouteReading } from "./route-reading.ts";
import { isRecord } from "./unknown-fields.ts";

export interface BackendFacts {
  service(namespace: string, name: string): KubeService | undefined;
  /** Of the namespace that is referred to. */
  grants(namespace: string): readonly ReferenceGrantObject[];
}

/** A port of a service that a route may use. */
export interface BackendPort {
  readonly kind: "port";
  readonly service: KubeService;
  readonly port: number;
}

const group = "gateway.networking.k8s.io";

export function resolveBackend(
  reference: RouteBackendReference,
  from: RouteReading,
  facts: BackendFacts,
): BackendPort | { readonly kind: "nowhere"; readonly problem: RouteProblem } {
  const namespace = reference.namespace ?? from.namespace;
  const { kind = "Service", name, port } = reference;
  const named = `${kind} ${namespace}/${name}`;
  if (kind !== "Service" || !isCore(reference.group)) return nowhere("InvalidKind", `backends of kind ${reference.group ?? ""}/${kind} are not supported`);
  if (name.includes(".")) return nowhere("InvalidDestination", `${named}: the name of a Service has no dots; hostnames cannot be backends`);
  if (port === undefined) return nowhere("InvalidDestination", `${named}: a port is required`);
  // Asked before anything is said about the service, so that a route cannot find out what exists elsewhere.
  if (namespace !== from.namespace && !facts.grants(namespace).some((grant) => permits(grant, from, name))) {
    return nowhere("RefNotPermitted", `${named} is in another namespace, and no ReferenceGrant there lets a ${from.kind} of ${from.namespace} refer to it`);
  }
  const service = facts.service(namespace, name);
  if (service === undefined || service.spec?.type === "ExternalName") return nowhere("BackendNotFound", `${named} was not found`);
  const found = service.spec?.ports?.find((candidate) => candidate.port === port && (candidate.protocol ?? "TCP") === "TCP");
  return found === undefined ? nowhere("BackendNotFound", `${named} has no port ${port}`) : { kind: "port", service, port };
}

function permits({ spec }: ReferenceGrantObject, from: RouteReading, name: string): boolean {
  return (
    records(spec?.from).some((entry) => entry.group === group && entry.kind === from.kind && entry.namespace === from.namespace) &&
    records(spec?.to).some((entry) => isCore(entry.group) && entry.kind === "Service" && (entry.name === undefined || entry.name === "" || entry.name === name))
  );
}

function records<T>(entries: readonly T[] | undefined): readonly T[] {
  const given: readonly T[] = Array.isArray(entries) ? entries : [];
  return given.filter((entry) => isRecord(entry));
}

/** The core group, under both of its names. */
export function isCore(name: string | undefined): boolean {
  return name === undefined || name === "" || name === "core";
}

function nowhere(reason: string, message: string): { readonly kind: "nowhere"; readonly problem: RouteProblem } {
  return { kind: "nowhere", problem: { condition: "ResolvedRefs", reason, message } };
}
