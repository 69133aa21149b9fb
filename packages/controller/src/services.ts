/** From a Kubernetes Service to a service of the mesh (controller contract 2.8). */
import type { Service as KubeService, Namespace, ServicePort } from "@fairway/kube";
import {
  type LoadBalancing,
  type LocalityScope,
  type NetworkId,
  type PortMapping,
  type Service,
  type ServiceKey,
  serviceKey,
  tryParseIp,
} from "@fairway/model";
import { appProtocol } from "./app-protocol.ts";
import { annotation, type Labels, label, matchesLabels, noLabels } from "./labels.ts";
import type { MeshSettings } from "./settings.ts";
import type { Binding } from "./waypoints.ts";

export interface ServiceContext {
  readonly settings: MeshSettings;
  readonly network: NetworkId;
  readonly namespace: Namespace | undefined;
  readonly binding: Binding;
}

const sameZone: readonly LocalityScope[] = ["network", "region", "zone"];
const sameNode: readonly LocalityScope[] = ["network", "region", "zone", "subzone", "node"];

export function serviceHostname({ metadata }: KubeService, { clusterDomain }: MeshSettings): string {
  return `${metadata.name}.${metadata.namespace ?? ""}.svc.${clusterDomain}`;
}

export function keyOfService(service: KubeService, settings: MeshSettings): ServiceKey {
  return serviceKey(service.metadata.namespace ?? "", serviceHostname(service, settings));
}

/** Undefined for ExternalName: its name resolves upstream, and what it resolves to is a destination of its own. */
export function convertService(service: KubeService, { settings, network, namespace, binding }: ServiceContext): Service | undefined {
  const { metadata, spec = {} } = service;
  if (spec.type === "ExternalName") return undefined;
  return {
    name: metadata.name,
    namespace: metadata.namespace ?? "",
    hostname: serviceHostname(service, settings),
    vips: clusterIps(service).map((ip) => ({ network, ip })),
    cidrVips: [],
    ports: (spec.ports ?? []).map(portMapping),
    subjectAltNames: [],
    waypoint: binding.kind === "bound" ? binding.address : undefined,
    weightedWaypoints: [],
    loadBalancing: loadBalancing(service, namespace),
    ipFamilies: ipFamilies(spec.ipFamilies ?? []),
    canonical: true,
    ingressUseWaypoint: (metadata.labels?.[label.ingressUseWaypoint] ?? namespace?.metadata.labels?.[label.ingressUseWaypoint]) === "true",
    visibility: "public",
  };
}

/** Whether the service picks pods by labels, and this one among them. An empty selector picks none. */
export function selects({ spec }: KubeService, labels: Labels): boolean {
  const selector = spec?.selector ?? noLabels;
  return Object.keys(selector).length > 0 && spec?.type !== "ExternalName" && matchesLabels(selector, labels);
}

export function isSelectorless({ spec }: KubeService): boolean {
  return Object.keys(spec?.selector ?? noLabels).length === 0 && spec?.type !== "ExternalName";
}

function clusterIps({ spec = {} }: KubeService) {
  const texts = spec.clusterIPs ?? (spec.clusterIP === undefined ? [] : [spec.clusterIP]);
  return texts.flatMap((text) => tryParseIp(text) ?? []);
}

function portMapping(port: ServicePort): PortMapping {
  const { port: servicePort, targetPort = servicePort } = port;
  return { servicePort, targetPort: typeof targetPort === "number" ? targetPort : 0, appProtocol: appProtocol(port) };
}

function ipFamilies(families: readonly string[]): Service["ipFamilies"] {
  if (families.length > 1) return "dual";
  return families[0] === "IPv4" ? "ipv4" : families[0] === "IPv6" ? "ipv6" : "automatic";
}

function loadBalancing({ metadata, spec = {} }: KubeService, namespace: Namespace | undefined): LoadBalancing {
  const healthPolicy = spec.publishNotReadyAddresses === true ? "allow-all" : "only-healthy";
  if (spec.internalTrafficPolicy === "Local") return { routingPreference: ["node"], mode: "strict", healthPolicy };
  const wish =
    distribution(spec.trafficDistribution) ??
    distribution(metadata.annotations?.[annotation.trafficDistribution]) ??
    distribution(namespace?.metadata.annotations?.[annotation.trafficDistribution]) ??
    "any";
  if (wish === "any") return { routingPreference: [], mode: "unspecified", healthPolicy };
  return { routingPreference: wish === "zone" ? sameZone : sameNode, mode: "failover", healthPolicy };
}

/** Words are compared without case; one that is set but unknown means any and ends the search. */
function distribution(value: string | undefined): "zone" | "node" | "any" | undefined {
  if (value === undefined || value === "") return undefined;
  switch (value.toLowerCase()) {
    case "preferclose":
    case "prefersamezone":
      return "zone";
    case "prefersamenode":
      return "node";
    default:
      return "any";
  }
}
