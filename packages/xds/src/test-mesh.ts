/** Small workloads, services and policies for the tests. */
import { type AuthorizationPolicy, defaultNetwork, type PolicyKey, parseIp, type Service, serviceKey, type Workload, type WorkloadUid } from "@fairway/model";
import { encodeAuthorization, encodeService, encodeWorkload, serviceAliases, workloadAliases } from "@fairway/protocol";
import type { ResourceContent } from "./resource-source.ts";

export function workload(name: string, change: Partial<Workload> = {}): Workload {
  return {
    uid: `Kubernetes//Pod/default/${name}` as WorkloadUid,
    name,
    namespace: "default",
    addresses: [],
    hostname: "",
    network: defaultNetwork,
    networkMode: "standard",
    networkGateway: undefined,
    tunnelProtocol: "hbone",
    nativeTunnel: false,
    applicationTunnel: undefined,
    trustDomain: "cluster.local",
    serviceAccount: "default",
    waypoint: undefined,
    node: "node-1",
    workloadName: name,
    workloadType: "pod",
    canonicalName: name,
    canonicalRevision: "",
    clusterId: "Kubernetes",
    locality: undefined,
    status: "healthy",
    services: new Map(),
    authorizationPolicies: [],
    capacity: 1,
    ...change,
  };
}

export function service(name: string, vip: string): Service {
  return {
    name,
    namespace: "default",
    hostname: `${name}.default.svc.cluster.local`,
    vips: [{ network: defaultNetwork, ip: parseIp(vip) }],
    cidrVips: [],
    ports: [{ servicePort: 80, targetPort: 8080, appProtocol: "unknown" }],
    subjectAltNames: [],
    waypoint: undefined,
    weightedWaypoints: [],
    loadBalancing: { routingPreference: [], mode: "unspecified", healthPolicy: "only-healthy" },
    ipFamilies: "automatic",
    canonical: true,
    ingressUseWaypoint: false,
    visibility: "public",
  };
}

export function policy(name: string, change: Partial<AuthorizationPolicy> = {}): AuthorizationPolicy {
  return { name, namespace: "default", scope: "workload-selector", action: "deny", rules: [], dryRun: false, ...change };
}

export function policyNamed(name: string): PolicyKey {
  return `default/${name}` as PolicyKey;
}

export function workloadResource(value: Workload): ResourceContent {
  return { name: value.uid, body: encodeWorkload(value), aliases: workloadAliases(value), partOf: [...value.services.keys()] };
}

export function serviceResource(value: Service): ResourceContent {
  return { name: serviceKey(value.namespace, value.hostname), body: encodeService(value), aliases: serviceAliases(value) };
}

export function policyResource(value: AuthorizationPolicy): ResourceContent {
  return { name: `${value.namespace}/${value.name}`, body: encodeAuthorization(value) };
}
