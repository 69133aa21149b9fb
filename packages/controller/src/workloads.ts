/** From pods, and from endpoints that are not pods, to workloads of the mesh (controller contract 2.4, 2.6, 2.7). */
import type { Container, Endpoint, EndpointSlice, Service as KubeService, Pod, ServicePort } from "@fairway/kube";
import {
  type ApplicationTunnel,
  type IpAddress,
  type Locality,
  type NetworkId,
  type PolicyKey,
  type PortMapping,
  type ServiceKey,
  tryParseIp,
  type Workload,
  type WorkloadUid,
} from "@fairway/model";
import { annotation, label } from "./labels.ts";
import { keyOfService } from "./services.ts";
import type { MeshSettings } from "./settings.ts";
import type { Binding } from "./waypoints.ts";
import { canonicalName, canonicalRevision, workloadName } from "./workload-name.ts";

export interface WorkloadContext {
  readonly settings: MeshSettings;
  readonly network: NetworkId;
  readonly locality: Locality | undefined;
  /** Services that pick this pod: by selector, or by an EndpointSlice that names it. */
  readonly services: readonly KubeService[];
  readonly binding: Binding;
  readonly applicationTunnel: ApplicationTunnel | undefined;
  readonly authorizationPolicies: readonly PolicyKey[];
}

/** Whether `podAddresses` may find any; without reading them. */
export function mayHaveAddresses({ status = {} }: Pod): boolean {
  if (status.phase === "Failed" || status.phase === "Succeeded") return false;
  return (status.podIP ?? "") !== "" || (status.podIPs?.length ?? 0) > 0;
}

/** A pod is in the mesh's view while it may have network: it has an address and has not ended. */
export function podAddresses({ status = {} }: Pod): readonly IpAddress[] {
  if (status.phase === "Failed" || status.phase === "Succeeded") return [];
  const texts = status.podIPs?.map(({ ip }) => ip) ?? [];
  const all = texts.length > 0 ? texts : status.podIP === undefined ? [] : [status.podIP];
  const addresses = all.map(tryParseIp);
  return addresses.every((ip) => ip !== undefined) ? addresses : [];
}

export function podUid({ metadata }: Pod, { clusterId }: MeshSettings): WorkloadUid {
  return `${clusterId}//Pod/${metadata.namespace ?? ""}/${metadata.name}` as WorkloadUid;
}

/** Undefined for a pod without addresses and for one that has ended. */
export function convertPod(pod: Pod, context: WorkloadContext): Workload | undefined {
  const addresses = podAddresses(pod);
  if (addresses.length === 0) return undefined;
  const { metadata, spec = {} } = pod;
  const { settings, binding } = context;
  const name = workloadName(pod);
  const native = (metadata.labels?.[label.tunnel] ?? "").split(",").includes("http");
  const captured = metadata.annotations?.[annotation.redirection] === "enabled";
  return {
    uid: podUid(pod, settings),
    name: metadata.name,
    namespace: metadata.namespace ?? "",
    addresses,
    hostname: "",
    network: context.network,
    networkMode: spec.hostNetwork === true ? "host-network" : "standard",
    networkGateway: undefined,
    tunnelProtocol: captured || native ? "hbone" : "none",
    nativeTunnel: native,
    applicationTunnel: context.applicationTunnel,
    trustDomain: settings.trustDomain,
    serviceAccount: spec.serviceAccountName ?? "default",
    waypoint: binding.kind === "bound" ? binding.address : undefined,
    node: spec.nodeName ?? "",
    workloadName: name,
    workloadType: "pod",
    canonicalName: canonicalName(pod, name),
    canonicalRevision: canonicalRevision(pod),
    clusterId: settings.clusterId,
    locality: context.locality,
    status: isReady(pod) ? "healthy" : "unhealthy",
    services: new Map(context.services.map((service) => [keyOfService(service, settings), podPorts(service, pod)])),
    authorizationPolicies: context.authorizationPolicies,
    capacity: 1,
  };
}

/** A terminating pod is not healthy, whatever its condition still says. */
function isReady({ metadata, status }: Pod): boolean {
  return metadata.deletionTimestamp === undefined && (status?.conditions ?? []).some(({ type, status: value }) => type === "Ready" && value === "True");
}

/** One mapping per service port; a named target port that this pod does not have is left out (controller contract 2.6). */
export function podPorts(service: KubeService, pod: Pod): readonly PortMapping[] {
  return (service.spec?.ports ?? []).flatMap((port): PortMapping[] => {
    const targetPort = podTargetPort(port, pod);
    return targetPort === undefined ? [] : [{ servicePort: port.port, targetPort, appProtocol: "unknown" }];
  });
}

function podTargetPort({ port, targetPort = port }: ServicePort, { spec = {} }: Pod): number | undefined {
  if (typeof targetPort === "number") return targetPort === 0 ? port : targetPort;
  const sidecars = (spec.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === "Always");
  return namedPort(spec.containers ?? [], targetPort) ?? namedPort(sidecars, targetPort);
}

function namedPort(containers: readonly Container[], wanted: string): number | undefined {
  return containers.flatMap(({ ports = [] }) => ports).find(({ name, protocol = "TCP" }) => name === wanted && protocol === "TCP")?.containerPort;
}

/** `namespace/name` of the pods that a slice names. */
export function slicePods({ metadata, addressType, endpoints }: EndpointSlice): readonly string[] {
  if (addressType === "FQDN") return [];
  return (endpoints ?? []).flatMap(({ targetRef }) => (targetRef?.kind === "Pod" ? [`${targetRef.namespace ?? metadata.namespace}/${targetRef.name}`] : []));
}

/** Whether one of the slice's endpoints is exactly this pod, and not an earlier one of the same name. */
export function sliceNames({ endpoints }: EndpointSlice, pod: { readonly name: string; readonly uid: string | undefined }): boolean {
  return (endpoints ?? []).some(
    ({ targetRef }) => targetRef?.kind === "Pod" && targetRef.name === pod.name && (targetRef.uid === undefined || targetRef.uid === pod.uid),
  );
}

/** Workloads for the endpoints of a slice that are not pods: known by address only, without identity (controller contract 2.7). */
export function convertSlice(
  slice: EndpointSlice,
  service: KubeService | undefined,
  context: { settings: MeshSettings; network: NetworkId },
): readonly Workload[] {
  if (service === undefined || service.spec?.type === "ExternalName" || (slice.addressType !== "IPv4" && slice.addressType !== "IPv6")) return [];
  return (slice.endpoints ?? []).flatMap((endpoint) => convertEndpoint(endpoint, slice, service, context) ?? []);
}

function convertEndpoint(
  { addresses, conditions, targetRef }: Endpoint,
  slice: EndpointSlice,
  service: KubeService,
  { settings, network }: { settings: MeshSettings; network: NetworkId },
): Workload | undefined {
  const ip = tryParseIp(addresses[0] ?? "");
  if (targetRef?.kind === "Pod" || ip === undefined) return undefined;
  const namespace = slice.metadata.namespace ?? "";
  const { name } = slice.metadata;
  return {
    uid: `${settings.clusterId}/discovery.k8s.io/EndpointSlice/${namespace}/${name}/${ip}` as WorkloadUid,
    name,
    namespace,
    addresses: [ip],
    hostname: "",
    network,
    networkMode: "host-network",
    networkGateway: undefined,
    tunnelProtocol: "none",
    nativeTunnel: false,
    applicationTunnel: undefined,
    trustDomain: settings.trustDomain,
    serviceAccount: "",
    waypoint: undefined,
    node: "",
    workloadName: name,
    workloadType: "pod",
    canonicalName: name,
    canonicalRevision: "latest",
    clusterId: settings.clusterId,
    locality: undefined,
    status: conditions?.ready === false ? "unhealthy" : "healthy",
    services: new Map<ServiceKey, readonly PortMapping[]>([[keyOfService(service, settings), slicePorts(slice, service)]]),
    authorizationPolicies: [],
    capacity: 1,
  };
}

/** Joined by the port's name, TCP only. */
function slicePorts({ ports = [] }: EndpointSlice, { spec }: KubeService): readonly PortMapping[] {
  return (spec?.ports ?? []).flatMap(({ name = "", port: servicePort }): PortMapping[] => {
    const target = ports.find((port) => (port.name ?? "") === name && (port.protocol ?? "TCP") === "TCP")?.port;
    return target === undefined ? [] : [{ servicePort, targetPort: target, appProtocol: "unknown" }];
  });
}
