/** From a service port to its cluster and endpoints, as a waypoint or a proxyless client sends to them (waypoint contract 2.3). */
import type { ServicePort } from "@fairway/kube";
import { type Cluster, type ClusterEndpoints, type Endpoint, type Locality, type Service, serviceKey, type Workload } from "@fairway/model";
import { appProtocol } from "./app-protocol.ts";
import { type ClusterSettings, defaultSettings } from "./destination-rules.ts";

export type ServedProtocol = "http" | "tcp" | "detect";

/** Words for protocols whose servers speak first, or that are no HTTP: their first bytes must not be waited for. */
const tcpWords: ReadonlySet<string> = new Set(["mongo", "redis", "mysql"]);
const httpWords: ReadonlySet<string> = new Set(["grpc-web", "http_proxy"]);

/** How a waypoint takes the bytes of a port; undefined for ports that are not TCP. */
export function servedProtocol(port: ServicePort): ServedProtocol | undefined {
  if ((port.protocol ?? "TCP") !== "TCP") return undefined;
  const declared = appProtocol(port);
  if (declared === "tcp" || declared === "tls") return "tcp";
  if (declared !== "unknown") return "http";
  const word = (port.appProtocol === undefined || port.appProtocol === "" ? (port.name ?? "") : port.appProtocol).toLowerCase();
  if (tcpWords.has(word.split("-", 1)[0] ?? "")) return "tcp";
  return [...httpWords].some((known) => word === known || word.startsWith(`${known}-`)) ? "http" : "detect";
}

/** Of a service that is bound to the waypoint. */
export function boundClusterName(port: number, protocol: "http" | "tcp", hostname: string): string {
  return `inbound-vip|${port}|${protocol}|${hostname}`;
}

/** Of a service that a route points at and that is not the waypoint's own. */
export function otherClusterName(port: number, hostname: string): string {
  return `outbound|${port}||${hostname}`;
}

export function clusterOf(name: string, { namespace, hostname }: Service, port: ServicePort, settings: ClusterSettings = defaultSettings): Cluster {
  return { name, service: { namespace, hostname, port: port.port }, protocol: upstreamProtocol(port), ...settings };
}

function upstreamProtocol(port: ServicePort): Cluster["protocol"] {
  switch (appProtocol(port)) {
    case "http2":
    case "grpc":
      return "http2";
    case "http11":
      return "http1";
    default:
      return "same";
  }
}

/** What is known where: of a locality, the parts that all pods of a waypoint share. */
export type Whereabouts = Pick<Locality, "region" | "zone">;

/**
 * The workloads of the service that have the port, by locality, the near ones first where it is known what is near. A workload that is
 * terminating has left.
 */
export function endpointsOf(
  cluster: string,
  service: Service,
  port: number,
  workloads: readonly Workload[],
  isTerminating: (workload: Workload) => boolean,
  near?: Whereabouts,
): ClusterEndpoints {
  const byLocality = new Map<string, { locality: Locality; endpoints: Endpoint[] }>();
  const key = serviceKey(service.namespace, service.hostname);
  for (const workload of workloads) {
    const target = workload.services.get(key)?.find(({ servicePort }) => servicePort === port)?.targetPort;
    const [ip] = workload.addresses;
    if (target === undefined || target === 0 || ip === undefined || isTerminating(workload)) continue;
    const locality = workload.locality ?? nowhere;
    const place = `${locality.region}/${locality.zone}/${locality.subzone}`;
    const group = byLocality.get(place) ?? { locality, endpoints: [] };
    byLocality.set(place, group);
    group.endpoints.push({
      address: { ip, port: target },
      tunnel: workload.tunnelProtocol === "hbone" ? "hbone" : "none",
      workload: workload.uid,
      health: workload.status === "healthy" || service.loadBalancing.healthPolicy === "allow-all" ? "healthy" : "unhealthy",
      weight: workload.capacity,
    });
  }
  const localities = [...byLocality.keys()].sort().flatMap((place) => byLocality.get(place) ?? []);
  // Priorities have no gaps: the nearest that there is comes first.
  const distances = [...new Set(localities.map(({ locality }) => distance(locality, near)))].sort((a, b) => a - b);
  return {
    cluster,
    localities: localities.map(({ locality, endpoints }) => ({
      locality,
      priority: distances.indexOf(distance(locality, near)),
      weight: endpoints.reduce((sum, { weight }) => sum + weight, 0),
      endpoints: unique(endpoints),
    })),
  };
}

/** 0 in the zone, 1 in the region, 2 elsewhere; all alike when nothing is near. */
function distance(locality: Locality, near: Whereabouts | undefined): number {
  if (near === undefined || near.region === "") return 0;
  if (locality.region !== near.region) return 2;
  return near.zone === "" || locality.zone === near.zone ? 0 : 1;
}

/** What all of these share: zone and region, the region, or nothing. */
export function commonWhereabouts(localities: readonly (Locality | undefined)[]): Whereabouts | undefined {
  const [first] = localities;
  if (first === undefined || first.region === "" || localities.some((locality) => locality?.region !== first.region)) return undefined;
  return { region: first.region, zone: localities.every((locality) => locality?.zone === first.zone) ? first.zone : "" };
}

const nowhere: Locality = { region: "", zone: "", subzone: "" };

/** By workload, so that the order of events never shows; one endpoint per address. */
function unique(endpoints: readonly Endpoint[]): readonly Endpoint[] {
  const seen = new Set<string>();
  return [...endpoints]
    .sort((a, b) => (a.workload < b.workload ? -1 : 1))
    .filter(({ address: { ip, port } }) => {
      const known = seen.has(`${ip} ${port}`);
      seen.add(`${ip} ${port}`);
      return !known;
    });
}
