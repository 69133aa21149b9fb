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

/**
 * The workloads of the service that have the port, by locality. All have one priority: which locality is near depends on where the waypoint's
 * pod runs, and the waypoint decides it. A workload that is terminating has left.
 */
export function endpointsOf(
  cluster: string,
  service: Service,
  port: number,
  workloads: readonly Workload[],
  isTerminating: (workload: Workload) => boolean,
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
  return {
    cluster,
    localities: localities.map(({ locality, endpoints }) => ({
      locality,
      priority: 0,
      weight: endpoints.reduce((sum, { weight }) => sum + weight, 0),
      endpoints: unique(endpoints),
    })),
  };
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
