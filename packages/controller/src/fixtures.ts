/** Objects and a mesh for the tests of this package: short to write, whole to read. */
import {
  type AuthorizationPolicyObject,
  type DestinationRule,
  type EndpointSlice,
  type GatewayClass,
  type GatewayObject,
  type GrpcRouteObject,
  type HttpRouteObject,
  type KubeObject,
  MutableCollection,
  type Namespace,
  type Node,
  objectKey,
  type PeerAuthentication,
  type Pod,
  type ReferenceGrantObject,
  type RequestAuthentication,
  type Service,
} from "@fairway/kube";
import { defaultNetwork } from "@fairway/model";
import type { Inputs } from "./inputs.ts";
import type { MeshSettings } from "./settings.ts";

export const testSettings: MeshSettings = {
  rootNamespace: "fairway-system",
  clusterId: "Kubernetes",
  trustDomain: "cluster.local",
  clusterDomain: "cluster.local",
  revision: "default",
  network: defaultNetwork,
  dryRunPolicies: true,
};

type Changes<T extends KubeObject> = Partial<Omit<T, "metadata">> & { metadata?: Partial<T["metadata"]> };

export function pod(name: string, changes: Changes<Pod> = {}): Pod {
  return {
    metadata: { name, namespace: "shop", uid: `uid-${name}`, labels: { app: name }, ...changes.metadata },
    spec: { nodeName: "n1", serviceAccountName: "default", containers: [{ name: "app", ports: [{ name: "http", containerPort: 8080 }] }], ...changes.spec },
    status: { phase: "Running", podIP: "10.0.0.1", podIPs: [{ ip: "10.0.0.1" }], conditions: [{ type: "Ready", status: "True" }], ...changes.status },
  };
}

export function service(name: string, changes: Changes<Service> = {}): Service {
  return {
    metadata: { name, namespace: "shop", ...changes.metadata },
    spec: {
      type: "ClusterIP",
      clusterIP: "10.1.0.1",
      clusterIPs: ["10.1.0.1"],
      selector: { app: name },
      ports: [{ name: "http", port: 80, targetPort: 8080 }],
      ...changes.spec,
    },
  };
}

export function namespace(name: string, labels: Record<string, string> = {}, annotations: Record<string, string> = {}): Namespace {
  return { metadata: { name, labels, annotations } };
}

export function node(name: string, labels: Record<string, string>): Node {
  return { metadata: { name, labels } };
}

export function slice(name: string, changes: Changes<EndpointSlice>): EndpointSlice {
  return { addressType: "IPv4", ...changes, metadata: { name, namespace: "shop", labels: { "kubernetes.io/service-name": "web" }, ...changes.metadata } };
}

export function gateway(name: string, changes: Changes<GatewayObject> = {}): GatewayObject {
  return {
    metadata: { name, namespace: "shop", ...changes.metadata },
    spec: { gatewayClassName: "istio-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }], ...changes.spec },
    status: {
      addresses: [
        { type: "Hostname", value: `${name}.shop.svc.cluster.local` },
        { type: "IPAddress", value: "10.1.9.9" },
      ],
      ...changes.status,
    },
  };
}

export function policy(name: string, spec: AuthorizationPolicyObject["spec"], metadata: Partial<KubeObject["metadata"]> = {}): AuthorizationPolicyObject {
  return { metadata: { name, namespace: "shop", ...metadata }, ...(spec === undefined ? {} : { spec }) };
}

export function peerAuthentication(name: string, spec: PeerAuthentication["spec"], metadata: Partial<KubeObject["metadata"]> = {}): PeerAuthentication {
  return { metadata: { name, namespace: "shop", creationTimestamp: "2026-01-01T00:00:00Z", ...metadata }, ...(spec === undefined ? {} : { spec }) };
}

export function httpRoute(name: string, spec: NonNullable<HttpRouteObject["spec"]>, metadata: Partial<KubeObject["metadata"]> = {}): HttpRouteObject {
  return { metadata: { name, namespace: "shop", creationTimestamp: "2026-01-01T00:00:00Z", ...metadata }, spec };
}

export function grpcRoute(name: string, spec: NonNullable<GrpcRouteObject["spec"]>, metadata: Partial<KubeObject["metadata"]> = {}): GrpcRouteObject {
  return { metadata: { name, namespace: "shop", creationTimestamp: "2026-01-01T00:00:00Z", ...metadata }, spec };
}

export interface TestInputs extends Inputs {
  readonly pods: MutableCollection<Pod>;
  readonly services: MutableCollection<Service>;
  readonly nodes: MutableCollection<Node>;
  readonly namespaces: MutableCollection<Namespace>;
  readonly endpointSlices: MutableCollection<EndpointSlice>;
  readonly gateways: MutableCollection<GatewayObject>;
  readonly gatewayClasses: MutableCollection<GatewayClass>;
  readonly authorizationPolicies: MutableCollection<AuthorizationPolicyObject>;
  readonly peerAuthentications: MutableCollection<PeerAuthentication>;
  readonly requestAuthentications: MutableCollection<RequestAuthentication>;
  readonly httpRoutes: MutableCollection<HttpRouteObject>;
  readonly grpcRoutes: MutableCollection<GrpcRouteObject>;
  readonly referenceGrants: MutableCollection<ReferenceGrantObject>;
  readonly destinationRules: MutableCollection<DestinationRule>;
}

export function testInputs(): TestInputs {
  const collection = <T extends KubeObject>(): MutableCollection<T> => new MutableCollection<T>(objectKey);
  return {
    pods: collection(),
    services: collection(),
    nodes: collection(),
    namespaces: collection(),
    endpointSlices: collection(),
    gateways: collection(),
    gatewayClasses: collection(),
    authorizationPolicies: collection(),
    peerAuthentications: collection(),
    requestAuthentications: collection(),
    httpRoutes: collection(),
    grpcRoutes: collection(),
    referenceGrants: collection(),
    destinationRules: collection(),
  };
}
