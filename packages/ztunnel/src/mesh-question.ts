/**
 * What a thread may ask about the mesh: each lookup of a snapshot as a question with a key. Walks over the whole mesh are no questions: they
 * stay where the whole mesh is.
 */
import type { AuthorizationPolicy, IpAddress, NetworkId, PolicyKey, Service, ServiceKey, Snapshot, Workload, WorkloadUid } from "@fairway/model";
import { assertNever } from "@fairway/runtime";
import type { PodName } from "./config.ts";

/** `labels`: what is not known here is not waited for; such an answer decides nothing, so it is kept apart from the others. */
export type MeshQuestion = MeshLookup & { readonly labels?: true };

type MeshLookup =
  | { readonly kind: "workload"; readonly uid: WorkloadUid }
  | { readonly kind: "workload-by-address"; readonly network: NetworkId; readonly ip: IpAddress }
  | { readonly kind: "workload-by-hostname"; readonly namespace: string; readonly hostname: string }
  | { readonly kind: "workload-by-name"; readonly pod: PodName; readonly node: string | undefined }
  | { readonly kind: "service"; readonly service: ServiceKey }
  | { readonly kind: "service-by-address"; readonly network: NetworkId; readonly ip: IpAddress; readonly clientNamespace: string }
  | { readonly kind: "services-at-address"; readonly network: NetworkId; readonly ip: IpAddress }
  | { readonly kind: "service-by-hostname"; readonly hostname: string; readonly clientNamespace: string }
  | { readonly kind: "endpoints"; readonly service: ServiceKey }
  | { readonly kind: "policy"; readonly policy: PolicyKey }
  | { readonly kind: "policies-for"; readonly subject: PolicySubject };

/** What of a workload decides which policies apply to it. */
export type PolicySubject = Pick<Workload, "namespace" | "authorizationPolicies">;

/** Equal questions have equal keys, and others never, whatever characters their names are made of. */
export function questionKey(question: MeshQuestion): string {
  const parts = partsOf(question);
  return JSON.stringify(question.labels === true ? ["labels", ...parts] : parts);
}

function partsOf(question: MeshQuestion): readonly (string | undefined)[] {
  const { kind } = question;
  switch (kind) {
    case "workload":
      return [kind, question.uid];
    case "workload-by-address":
    case "services-at-address":
      return [kind, question.network, question.ip];
    case "workload-by-hostname":
      return [kind, question.namespace, question.hostname];
    case "workload-by-name": {
      const { namespace, name, serviceAccount } = question.pod;
      return [kind, namespace, name, serviceAccount, question.node];
    }
    case "service":
    case "endpoints":
      return [kind, question.service];
    case "service-by-address":
      return [kind, question.network, question.ip, question.clientNamespace];
    case "service-by-hostname":
      return [kind, question.hostname, question.clientNamespace];
    case "policy":
      return [kind, question.policy];
    case "policies-for":
      return [kind, question.subject.namespace, ...question.subject.authorizationPolicies];
    default:
      return assertNever(question);
  }
}

/** What a question is answered with at one moment. */
export interface Evaluation {
  /** The same object as before means: the same answer as before. */
  readonly token: unknown;
  readonly workloads: readonly Workload[];
  readonly services: readonly Service[];
  readonly policies: readonly AuthorizationPolicy[];
  /** Named by a workload and not known. */
  readonly missing: readonly PolicyKey[];
}

const nothing: Omit<Evaluation, "token"> = { workloads: [], services: [], policies: [], missing: [] };

/** Asks a snapshot. */
export function evaluate(snapshot: Snapshot, question: MeshQuestion): Evaluation {
  const workload = (found: Workload | undefined): Evaluation => ({ ...nothing, token: found, workloads: found === undefined ? [] : [found] });
  const service = (found: Service | undefined): Evaluation => ({ ...nothing, token: found, services: found === undefined ? [] : [found] });
  switch (question.kind) {
    case "workload":
      return workload(snapshot.workload(question.uid));
    case "workload-by-address":
      return workload(snapshot.workloadByAddress(question.network, question.ip));
    case "workload-by-hostname":
      return workload(snapshot.workloadByHostname(question.namespace, question.hostname));
    case "workload-by-name":
      return workload(snapshot.workloadByName(question.pod, question.node));
    case "service":
      return service(snapshot.service(question.service));
    case "service-by-address":
      return service(snapshot.serviceByAddress(question.network, question.ip, question.clientNamespace));
    case "services-at-address": {
      const services = [...snapshot.servicesAtAddress(question.network, question.ip)];
      return { ...nothing, token: services, services };
    }
    case "service-by-hostname":
      return service(snapshot.serviceByHostname(question.hostname, question.clientNamespace));
    case "endpoints": {
      const endpoints = snapshot.endpoints(question.service);
      return { ...nothing, token: endpoints, workloads: [...endpoints] };
    }
    case "policy": {
      const policy = snapshot.policy(question.policy);
      return { ...nothing, token: policy, policies: policy === undefined ? [] : [policy] };
    }
    case "policies-for": {
      const applicable = snapshot.policiesFor(question.subject);
      return { ...nothing, token: applicable, ...applicable };
    }
    default:
      return assertNever(question);
  }
}
