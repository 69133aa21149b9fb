/** What one cluster remembers between requests: its endpoints with their health and connections, its breakers, its turn. */
import { type Cluster, type ClusterEndpoints, type Endpoint, formatSocketAddress, type Locality, type LocalityEndpoints } from "@fairway/model";
import { EndpointHealth, type EndpointOutcome, mayEject } from "./ejection.ts";
import type { EndpointConnections } from "./endpoint-connections.ts";
import type { HttpVersion } from "./http-connection.ts";
import { Breakers, type Limited } from "./limits.ts";
import { type Candidate, LoadBalancer } from "./load-balancer.ts";

/** An endpoint as one cluster sees it. It outlives changes of the list that keep it. */
export class Host implements Candidate {
  readonly key: string;
  readonly health: EndpointHealth = new EndpointHealth();
  readonly pools: Map<HttpVersion, EndpointConnections> = new Map();
  endpoint: Endpoint;
  priority = 0;
  locality: Locality;
  localityWeight = 1;
  active = 0;

  constructor(endpoint: Endpoint, group: LocalityEndpoints) {
    this.key = hostKey(endpoint);
    this.endpoint = endpoint;
    this.locality = group.locality;
    this.update(endpoint, group);
  }

  get weight(): number {
    return Math.max(1, this.endpoint.weight);
  }

  usable(now: number): boolean {
    return this.endpoint.health === "healthy" && !this.health.isOut(now);
  }

  update(endpoint: Endpoint, { priority, locality, weight }: LocalityEndpoints): void {
    this.endpoint = endpoint;
    this.priority = priority;
    this.locality = locality;
    this.localityWeight = weight;
  }

  /** Requests under way finish; nobody new comes. */
  leave(): void {
    for (const pool of this.pools.values()) pool.drain();
    this.pools.clear();
  }

  destroy(reason: Error): void {
    for (const pool of this.pools.values()) pool.destroy(reason);
    this.pools.clear();
  }
}

export interface ClusterStateOptions {
  readonly random: () => number;
  readonly onOverflow: (cluster: string, what: Limited) => void;
  readonly onEjected: (cluster: string, host: Host) => void;
}

export class ClusterState {
  readonly breakers: Breakers;
  readonly #options: ClusterStateOptions;
  #cluster: Cluster;
  #endpoints: ClusterEndpoints | undefined;
  #hosts = new Map<string, Host>();
  #balancer: LoadBalancer<Host>;

  constructor(cluster: Cluster, options: ClusterStateOptions) {
    this.#cluster = cluster;
    this.#options = options;
    this.breakers = new Breakers(cluster.name, cluster.limits, (what) => options.onOverflow(cluster.name, what));
    this.#balancer = new LoadBalancer<Host>(cluster.loadBalancing, [], options.random);
  }

  get cluster(): Cluster {
    return this.#cluster;
  }

  /** Nobody is asked now. */
  get isIdle(): boolean {
    for (const { active } of this.#hosts.values()) if (active > 0) return false;
    return true;
  }

  hosts(): Iterable<Host> {
    return this.#hosts.values();
  }

  /** Takes over what is in force now; cheap when nothing changed. */
  update(cluster: Cluster, endpoints: ClusterEndpoints | undefined): void {
    if (cluster === this.#cluster && endpoints === this.#endpoints) return;
    this.#cluster = cluster;
    this.#endpoints = endpoints;
    this.breakers.limits = cluster.limits;
    const next = new Map<string, Host>();
    for (const group of endpoints?.localities ?? []) {
      for (const endpoint of group.endpoints) {
        const known = this.#hosts.get(hostKey(endpoint));
        const host = known ?? new Host(endpoint, group);
        known?.update(endpoint, group);
        next.set(host.key, host);
      }
    }
    for (const host of this.#hosts.values()) if (!next.has(host.key)) host.leave();
    this.#hosts = next;
    this.#balancer = new LoadBalancer<Host>(cluster.loadBalancing, [...next.values()], this.#options.random);
  }

  pick(now: number, avoid: ReadonlySet<string>): Host | undefined {
    return this.#balancer.pick(now, avoid);
  }

  /** What a request to `host` says of its health. */
  observe(host: Host, outcome: EndpointOutcome, now: number): void {
    const { ejection } = this.#cluster;
    if (ejection === undefined || !host.health.observe(outcome, ejection, now)) return;
    let out = 0;
    for (const other of this.#hosts.values()) if (other.health.isOut(now)) out++;
    if (!mayEject(out, this.#hosts.size, ejection)) return;
    host.health.eject(ejection, now);
    this.#options.onEjected(this.#cluster.name, host);
  }

  leave(): void {
    for (const host of this.#hosts.values()) host.leave();
    this.#hosts = new Map();
  }

  destroy(reason: Error): void {
    for (const host of this.#hosts.values()) host.destroy(reason);
    this.#hosts = new Map();
  }
}

/** A workload with another uid at the same address is somebody else. */
function hostKey({ workload, tunnel, address }: Endpoint): string {
  return `${workload}|${tunnel}|${formatSocketAddress(address)}`;
}
