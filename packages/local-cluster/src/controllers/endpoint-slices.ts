/** Which endpoints a service has: the slices for its selector, per family and per set of resolved ports. Pure. */
import { familyOf } from "../network/address-plan.ts";
import { type Endpoint, type EndpointSlice, isFinished, isReady, ownerReference, type Pod, type Service, type ServicePort } from "../resources.ts";

/** As in Kubernetes; a service with more pods has several slices per family. */
const endpointsPerSlice = 100;
export const managedBy = "endpointslice-controller.k8s.io";

/** The slices a service should have; none for one without selector (its slices are its author's). `zoneOf` names a node's zone. */
export function slicesOf(service: Service, pods: Iterable<Pod>, zoneOf: (node: string) => string | undefined): EndpointSlice[] {
  const selector = service.spec?.selector;
  if (selector === undefined || Object.keys(selector).length === 0 || service.spec?.type === "ExternalName") return [];
  const selected = [...pods]
    .filter((pod) => pod.metadata.namespace === service.metadata.namespace && pod.status?.podIP !== undefined && !isFinished(pod))
    .filter((pod) => Object.entries(selector).every(([key, value]) => pod.metadata.labels?.[key] === value))
    .sort((a, b) => a.metadata.name.localeCompare(b.metadata.name));
  return (service.spec?.ipFamilies ?? ["IPv4"]).flatMap((addressType) => {
    const groups = new Map<string, { ports: NonNullable<EndpointSlice["ports"]>; endpoints: Endpoint[] }>();
    for (const pod of selected) {
      const addresses = (pod.status?.podIPs ?? []).map(({ ip }) => ip).filter((ip) => (familyOf(ip) === "ipv4" ? "IPv4" : "IPv6") === addressType);
      if (addresses.length === 0) continue;
      const ports = (service.spec?.ports ?? []).flatMap((port) => resolvePort(port, pod));
      const key = JSON.stringify(ports);
      const group = groups.get(key) ?? { ports, endpoints: [] };
      group.endpoints.push(endpointOf(service, pod, addresses, zoneOf));
      groups.set(key, group);
    }
    // A service without endpoints keeps an empty slice, so that readers see that it has none.
    if (groups.size === 0) groups.set("", { ports: [], endpoints: [] });
    const chunks = [...groups.values()].flatMap(({ ports, endpoints }) => chunked(endpoints).map((chunk) => ({ ports, endpoints: chunk })));
    return chunks.map(({ ports, endpoints }, index) => sliceOf(service, `${addressType.toLowerCase()}-${index}`, addressType, ports, endpoints));
  });
}

function sliceOf(service: Service, suffix: string, addressType: string, ports: NonNullable<EndpointSlice["ports"]>, endpoints: Endpoint[]): EndpointSlice {
  const { name, namespace, labels = {} } = service.metadata;
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      name: `${name}-${suffix}`,
      ...(namespace === undefined ? {} : { namespace }),
      labels: {
        ...labels,
        "kubernetes.io/service-name": name,
        "endpointslice.kubernetes.io/managed-by": managedBy,
        ...(service.spec?.clusterIP === "None" ? { "service.kubernetes.io/headless": "" } : {}),
      },
      ownerReferences: [ownerReference("v1", "Service", service)],
    },
    addressType,
    endpoints,
    ports,
  };
}

/** A pod that ends stays listed, no longer ready, until it is gone: that is how readers learn that it serves its last requests. */
function endpointOf(service: Service, pod: Pod, addresses: string[], zoneOf: (node: string) => string | undefined): Endpoint {
  const terminating = pod.metadata.deletionTimestamp !== undefined;
  const serving = isReady(pod) || service.spec?.publishNotReadyAddresses === true;
  const zone = pod.spec.nodeName === undefined ? undefined : zoneOf(pod.spec.nodeName);
  const named = pod.spec.hostname !== undefined && pod.spec.subdomain === service.metadata.name;
  return {
    addresses,
    conditions: { ready: serving && (!terminating || service.spec?.publishNotReadyAddresses === true), serving, terminating },
    ...(named && pod.spec.hostname !== undefined ? { hostname: pod.spec.hostname } : {}),
    ...(pod.spec.nodeName === undefined ? {} : { nodeName: pod.spec.nodeName }),
    ...(zone === undefined ? {} : { zone }),
    targetRef: { kind: "Pod", namespace: pod.metadata.namespace ?? "", name: pod.metadata.name, uid: pod.metadata.uid ?? "" },
  };
}

/** A named target port is looked up in the pod; a pod that does not have it offers nothing there. */
function resolvePort(port: ServicePort, pod: Pod): NonNullable<EndpointSlice["ports"]> {
  const protocol = port.protocol ?? "TCP";
  const target = port.targetPort ?? port.port;
  const candidates = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].flatMap(({ ports = [] }) => ports);
  const number =
    typeof target === "number" ? target : candidates.find((known) => known.name === target && (known.protocol ?? "TCP") === protocol)?.containerPort;
  if (number === undefined) return [];
  return [{ name: port.name ?? "", port: number, protocol, ...(port.appProtocol === undefined ? {} : { appProtocol: port.appProtocol }) }];
}

function chunked(endpoints: readonly Endpoint[]): Endpoint[][] {
  if (endpoints.length === 0) return [[]];
  return Array.from({ length: Math.ceil(endpoints.length / endpointsPerSlice) }, (_, index) =>
    endpoints.slice(index * endpointsPerSlice, (index + 1) * endpointsPerSlice),
  );
}
