/** What the controller reads of Kubernetes: one collection each, reduced to the fields that are used. */
import {
  type AuthorizationPolicyObject,
  type Collection,
  type DestinationRule,
  type EndpointSlice,
  type GatewayClass,
  type GatewayObject,
  type GrpcRouteObject,
  type HttpRouteObject,
  type KubeClient,
  type KubeObject,
  type Namespace,
  type Node,
  type PeerAuthentication,
  type Pod,
  type ReferenceGrantObject,
  type RequestAuthentication,
  resources,
  type Service,
} from "@fairway/kube";

export interface Inputs {
  readonly pods: Collection<Pod>;
  readonly services: Collection<Service>;
  readonly nodes: Collection<Node>;
  readonly namespaces: Collection<Namespace>;
  readonly endpointSlices: Collection<EndpointSlice>;
  readonly gateways: Collection<GatewayObject>;
  readonly gatewayClasses: Collection<GatewayClass>;
  readonly authorizationPolicies: Collection<AuthorizationPolicyObject>;
  readonly peerAuthentications: Collection<PeerAuthentication>;
  readonly requestAuthentications: Collection<RequestAuthentication>;
  readonly httpRoutes: Collection<HttpRouteObject>;
  readonly grpcRoutes: Collection<GrpcRouteObject>;
  readonly referenceGrants: Collection<ReferenceGrantObject>;
  readonly destinationRules: Collection<DestinationRule>;
}

/** Starts watching everything. Dispose to stop. */
export function openInputs(client: KubeClient): Inputs & AsyncDisposable {
  const inputs = {
    pods: client.collection(resources.pods, { reduce: reducePod }),
    services: client.collection(resources.services, { reduce: withoutLastApplied }),
    nodes: client.collection(resources.nodes, {
      reduce: ({ metadata: { name, uid, labels } }) => ({ metadata: { name, ...(uid === undefined ? {} : { uid }), labels: labels ?? {} } }),
    }),
    namespaces: client.collection(resources.namespaces, { reduce: withoutLastApplied }),
    endpointSlices: client.collection(resources.endpointSlices, { reduce: withoutLastApplied }),
    gateways: client.collection(resources.gateways, { reduce: withoutLastApplied }),
    gatewayClasses: client.collection(resources.gatewayClasses, { reduce: withoutLastApplied }),
    authorizationPolicies: client.collection(resources.authorizationPolicies, { reduce: withoutLastApplied }),
    peerAuthentications: client.collection(resources.peerAuthentications, { reduce: withoutLastApplied }),
    requestAuthentications: client.collection(resources.requestAuthentications, { reduce: withoutLastApplied }),
    httpRoutes: client.collection(resources.httpRoutes, { reduce: withoutLastApplied }),
    grpcRoutes: client.collection(resources.grpcRoutes, { reduce: withoutLastApplied }),
    referenceGrants: client.collection(resources.referenceGrants, { reduce: withoutLastApplied }),
    destinationRules: client.collection(resources.destinationRules, { reduce: withoutLastApplied }),
  };
  return {
    ...inputs,
    [Symbol.asyncDispose]: async () => {
      await Promise.all(Object.values(inputs).map((collection) => collection[Symbol.asyncDispose]()));
    },
  };
}

/** Names of the inputs whose first list is still awaited; what readiness shows. */
export function inputNames(): readonly (keyof Inputs)[] {
  return [
    "pods",
    "services",
    "nodes",
    "namespaces",
    "endpointSlices",
    "gateways",
    "gatewayClasses",
    "authorizationPolicies",
    "peerAuthentications",
    "requestAuthentications",
    "httpRoutes",
    "grpcRoutes",
    "referenceGrants",
    "destinationRules",
  ];
}

/** Pods are most of a cluster's bytes: environment, volumes, probes and images are not ours to keep. */
export function reducePod({ apiVersion, kind, metadata, spec = {}, status = {} }: Pod): Pod {
  const ports = ({ name, ports: all = [], restartPolicy }: NonNullable<typeof spec.containers>[number]) => ({
    name,
    ports: all,
    ...(restartPolicy === undefined ? {} : { restartPolicy }),
  });
  const { nodeName, serviceAccountName, hostNetwork } = spec;
  const { phase, podIP, podIPs } = status;
  return {
    ...(apiVersion === undefined ? {} : { apiVersion }),
    ...(kind === undefined ? {} : { kind }),
    metadata: { ...metadata, annotations: meshAnnotations(metadata.annotations ?? {}) },
    spec: {
      ...(nodeName === undefined ? {} : { nodeName }),
      ...(serviceAccountName === undefined ? {} : { serviceAccountName }),
      ...(hostNetwork === undefined ? {} : { hostNetwork }),
      containers: (spec.containers ?? []).map(ports),
      initContainers: (spec.initContainers ?? []).map(ports),
    },
    status: {
      ...(phase === undefined ? {} : { phase }),
      ...(podIP === undefined ? {} : { podIP }),
      ...(podIPs === undefined ? {} : { podIPs }),
      conditions: (status.conditions ?? []).filter(({ type }) => type === "Ready").map(({ type, status: value }) => ({ type, status: value })),
    },
  };
}

function meshAnnotations(annotations: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(annotations).filter(([key]) => meshDomains.some((domain) => key.includes(domain))));
}

/** Part of every annotation of the ambient API, and of our own. */
const meshDomains = ["istio.io/", "fairway.dev/"] as const;
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration";

function withoutLastApplied<T extends KubeObject>(object: T): T {
  const { annotations } = object.metadata;
  if (annotations?.[lastApplied] === undefined) return object;
  const { [lastApplied]: _, ...kept } = annotations;
  return { ...object, metadata: { ...object.metadata, annotations: kept } };
}
