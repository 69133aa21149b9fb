/** The mesh as proxyless gRPC clients are told of it: one name at a time, made when it is asked for (waypoint contract 3). */
import { type Collection, derive, index, type Service as KubeService, type Pod } from "@fairway/kube";
import type { Cluster, ClusterEndpoints, Service, SocketAddress, Workload } from "@fairway/model";
import { type GrpcResources, grpcResources } from "@fairway/protocol";
import { clusterOf, endpointsOf, otherClusterName } from "./clusters.ts";
import type { ServicePortName } from "./proxyless-names.ts";
import type { ProxylessTable } from "./proxyless-routes.ts";

export interface ProxylessSources {
  readonly services: Collection<KubeService>;
  readonly pods: Collection<Pod>;
  /** By the key of the Service object. */
  readonly meshServices: Collection<Service>;
  readonly workloads: Collection<Workload>;
  readonly tables: Collection<ProxylessTable>;
}

/** What one name leads to, and the Services that it was made of. */
export interface ProxylessAnswer {
  /** Undefined when there is no such service or port. */
  readonly resources: GrpcResources | undefined;
  readonly services: ReadonlySet<string>;
}

/** Many clients ask for the same names; so many answers are kept for the next one who asks. */
const maxKept = 2_000;

export class ProxylessMesh implements Disposable {
  readonly #sources: ProxylessSources;
  readonly #members: { lookup(service: string): readonly Workload[] };
  readonly #terminating: Collection<true>;
  readonly #kept = new Map<string, ProxylessAnswer>();
  readonly #listeners = new Set<(services: ReadonlySet<string>) => void>();
  readonly #subscriptions: readonly Disposable[];

  constructor(sources: ProxylessSources) {
    this.#sources = sources;
    const { services, pods, meshServices, workloads, tables } = sources;
    this.#members = index(workloads, objectsOf);
    const terminating = derive<Pod, true>(pods, ({ metadata }) => (metadata.deletionTimestamp === undefined ? undefined : true));
    this.#terminating = terminating;
    const byPod = index(workloads, ({ namespace, name }) => [`${namespace}/${name}`]);
    this.#subscriptions = [
      services.subscribe((events) => this.#changed(events.map(({ key }) => key))),
      meshServices.subscribe((events) => this.#changed(events.map(({ key }) => key))),
      tables.subscribe((events) => this.#changed(events.map(({ object }) => object.service))),
      terminating.subscribe((events) => this.#changed(events.flatMap(({ key }) => byPod.lookup(key).flatMap(objectsOf)))),
      workloads.subscribe((events) =>
        this.#changed(events.flatMap((event) => [...objectsOf(event.object), ...(event.type === "updated" ? objectsOf(event.previous) : [])])),
      ),
    ];
  }

  /** What a client that asks for the listener `name` is told of that port: its routes, and the clusters that they lead to. */
  answer(name: string, { service, port }: ServicePortName): ProxylessAnswer {
    return this.#keep(`${name}|${service}|${port}`, () => this.#make(name, { service, port }, this.#sources.tables.get(`${service}|${port}`)));
  }

  /** What a client that was led to the port by routes is told: its own cluster, whatever routes the service has itself. */
  backend({ service, port }: ServicePortName): ProxylessAnswer {
    return this.#keep(`|${service}|${port}`, () => this.#make(service, { service, port }, undefined));
  }

  #keep(id: string, make: () => ProxylessAnswer): ProxylessAnswer {
    const kept = this.#kept.get(id);
    if (kept !== undefined) return kept;
    const answer = make();
    if (this.#kept.size >= maxKept) {
      const [oldest] = this.#kept.keys();
      if (oldest !== undefined) this.#kept.delete(oldest);
    }
    this.#kept.set(id, answer);
    return answer;
  }

  /** Called with the keys of the Services about which something may have changed. */
  subscribe(listener: (services: ReadonlySet<string>) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  [Symbol.dispose](): void {
    for (const subscription of this.#subscriptions) subscription[Symbol.dispose]();
  }

  #changed(keys: readonly string[]): void {
    const services = new Set(keys);
    if (services.size === 0) return;
    for (const [id, answer] of this.#kept) if (overlap(services, answer.services)) this.#kept.delete(id);
    for (const listener of [...this.#listeners]) listener(services);
  }

  #make(name: string, { service: key, port }: ServicePortName, table: ProxylessTable | undefined): ProxylessAnswer {
    const backends = table?.backends ?? [];
    const services = new Set([key, ...backends.map(({ service }) => service)]);
    const own = this.#clusterOf(key, port);
    if (own === undefined) return { resources: undefined, services };
    const clusters = new Map<string, Cluster>();
    const endpoints = new Map<string, ClusterEndpoints>();
    for (const found of [own, ...backends.flatMap((backend) => this.#clusterOf(backend.service, backend.port) ?? [])]) {
      clusters.set(found.cluster.name, found.cluster);
      endpoints.set(found.cluster.name, found.endpoints);
    }
    const { cluster, vip } = own;
    return { services, resources: grpcResources({ name, port, cluster, routes: table?.table, clusters, endpoints, vip }) };
  }

  #clusterOf(
    key: string,
    port: number,
  ): { readonly cluster: Cluster; readonly endpoints: ClusterEndpoints; readonly vip: SocketAddress | undefined } | undefined {
    const { services, meshServices } = this.#sources;
    const service = meshServices.get(key);
    const declared = services.get(key)?.spec?.ports?.find((candidate) => candidate.port === port && (candidate.protocol ?? "TCP") === "TCP");
    if (service === undefined || declared === undefined) return undefined;
    const name = otherClusterName(port, service.hostname);
    const cluster = clusterOf(name, service, declared);
    if (service.waypoint === undefined) {
      const gone = ({ namespace, name: pod }: Workload): boolean => this.#terminating.get(`${namespace}/${pod}`) === true;
      return { cluster, endpoints: endpointsOf(name, service, port, this.#members.lookup(key), gone), vip: undefined };
    }
    // Only traffic to the virtual address goes through the waypoint. Where there is none, nothing is told: the waypoint is not passed by.
    const [address] = service.vips;
    const vip = address === undefined ? undefined : { ip: address.ip, port };
    return { cluster, endpoints: { cluster: name, localities: vip === undefined ? [] : [toVip(vip)] }, vip };
  }
}

export function overlap(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  for (const value of a) if (b.has(value)) return true;
  return false;
}

function toVip(address: SocketAddress): ClusterEndpoints["localities"][number] {
  const endpoint = { address, tunnel: "none", workload: "", health: "healthy", weight: 1 } as const;
  return { locality: { region: "", zone: "", subzone: "" }, priority: 0, weight: 1, endpoints: [endpoint] };
}

/** Keys of the Service objects that a workload is an endpoint of. */
function objectsOf({ services }: Workload): readonly string[] {
  return [...services.keys()].map((key) => {
    const slash = key.indexOf("/");
    const dot = key.indexOf(".", slash);
    return dot < 0 ? key : key.slice(0, dot);
  });
}
