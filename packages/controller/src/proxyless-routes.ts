/** The routes of Services without a waypoint, as proxyless gRPC clients follow them themselves (waypoint contract 3.4). */
import { type Collection, deriveMany, type Fetch, index, type Service as KubeService } from "@fairway/kube";
import type { RouteTable, Service } from "@fairway/model";
import { type BackendFacts, resolveBackend } from "./backends.ts";
import { otherClusterName, servedProtocol } from "./clusters.ts";
import type { ServicePortName } from "./proxyless-names.ts";
import type { RouteReading } from "./route-reading.ts";
import { type BackendAnswer, routeTable } from "./routes.ts";
import { isServiceParent, mayRoute, namesPort, serviceParent } from "./waypoint-programs.ts";

export interface ProxylessTable extends ServicePortName {
  readonly table: RouteTable;
  /** What the routes point at. */
  readonly backends: readonly ServicePortName[];
}

export interface ProxylessRouteSources {
  readonly services: Collection<KubeService>;
  /** By the key of the Service object. */
  readonly meshServices: Collection<Service>;
  readonly routes: Collection<RouteReading>;
  readonly backendFacts: (fetch: Fetch) => BackendFacts;
}

/** By `<namespace>/<name>|<port>`; a port without routes has no table. */
export function deriveProxylessTables({ services, meshServices, routes, backendFacts }: ProxylessRouteSources): Collection<ProxylessTable> {
  const byParent = index(routes, ({ parents, namespace }) => parents.filter(isServiceParent).map((parent) => serviceParent(parent, namespace)));
  return deriveMany<KubeService, ProxylessTable>(services, (service, fetch) => {
    const key = `${service.metadata.namespace ?? ""}/${service.metadata.name}`;
    const readings = fetch.lookup(byParent, key).filter(({ namespace }) => mayRoute(namespace, service.metadata.namespace ?? "", undefined));
    const known = readings.length === 0 ? undefined : fetch.get(meshServices, key);
    // A waypoint follows the routes of its services itself.
    if (known === undefined || known.waypoint !== undefined) return [];
    const facts = backendFacts(fetch);
    return (service.spec?.ports ?? []).flatMap((port) => {
      const protocol = servedProtocol(port);
      const ofPort = readings.filter(({ parents, namespace }) => parents.some((parent) => namesPort(parent, namespace, key, port.port)));
      if (ofPort.length === 0 || protocol === undefined || protocol === "tcp") return [];
      const backends = new Map<string, ServicePortName>();
      const find = (reference: Parameters<typeof resolveBackend>[0], from: RouteReading): BackendAnswer => {
        const answer = resolveBackend(reference, from, facts);
        if (answer.kind === "nowhere") return answer;
        const backend = `${answer.service.metadata.namespace ?? ""}/${answer.service.metadata.name}`;
        const cluster = otherClusterName(answer.port, fetch.get(meshServices, backend)?.hostname ?? "");
        backends.set(cluster, { service: backend, port: answer.port });
        return { kind: "cluster", cluster };
      };
      const own = otherClusterName(port.port, known.hostname);
      const table = routeTable(own, port.port, own, ofPort, find);
      return [[`${key}|${port.port}`, { service: key, port: port.port, table, backends: [...backends.values()] }] as const];
    });
  });
}
