/** Every way to find services in a snapshot: by key, hostname, virtual address, and virtual range. */
import { type Cidr, type IpAddress, ipFamily, ipFromBytes, ipToBytes, type NetworkAddress, type NetworkId } from "./address.ts";
import { GroupBatch, GroupIndex } from "./group-index.ts";
import { hashText, type Keyed, PersistentMap } from "./persistent-map.ts";
import type { Service } from "./service.ts";
import type { NamedServices } from "./snapshot.ts";
import { type ServiceKey, serviceKey } from "./workload.ts";

interface Indices {
  readonly byKey: PersistentMap<ServiceKey, Service>;
  readonly byHostname: GroupIndex<ServiceKey, Service>;
  /** Several services may share a virtual address. */
  readonly byVip: GroupIndex<ServiceKey, Service>;
  readonly byRange: GroupIndex<ServiceKey, Service>;
  /** How many services use each prefix length, by network and family; a lookup tries only lengths in use. */
  readonly lengths: ReadonlyMap<string, ReadonlyMap<number, number>>;
  /** How many services have a wildcard of so many labels as their hostname. */
  readonly wildcardLabels: ReadonlyMap<number, number>;
}

const keyOf = ({ namespace, hostname }: Service): ServiceKey => serviceKey(namespace, hostname);
const byServiceKey: Keyed<ServiceKey, Service> = { keyOf, hash: hashText, isKey: (value, key) => keyOf(value) === key };

export class ServiceIndex {
  readonly #indices: Indices;

  private constructor(indices: Indices) {
    this.#indices = indices;
  }

  static readonly empty: ServiceIndex = new ServiceIndex({
    byKey: PersistentMap.empty(byServiceKey),
    byHostname: GroupIndex.empty(byServiceKey),
    byVip: GroupIndex.empty(byServiceKey),
    byRange: GroupIndex.empty(byServiceKey),
    lengths: new Map(),
    wildcardLabels: new Map(),
  });

  get(key: ServiceKey): Service | undefined {
    return this.#indices.byKey.get(key);
  }

  all(): Iterable<Service> {
    return this.#indices.byKey;
  }

  withHostname(hostname: string, clientNamespace: string): Service | undefined {
    return preferred(this.#indices.byHostname.members(hostname), clientNamespace);
  }

  /** By hostname, then by the wildcards over it. Costs a lookup for each number of labels that wildcards have, however long the name is. */
  *named(hostname: string): Iterable<NamedServices> {
    const { byHostname, wildcardLabels } = this.#indices;
    yield { hostname, services: byHostname.members(hostname) };
    if (wildcardLabels.size === 0) return;
    let labels = hostname.split(".").length;
    for (let dot = hostname.indexOf("."); dot >= 0; dot = hostname.indexOf(".", dot + 1)) {
      const wildcard = wildcardLabels.has(labels) ? `*${hostname.slice(dot)}` : hostname;
      if (wildcard !== hostname) yield { hostname: wildcard, services: byHostname.members(wildcard) };
      labels -= 1;
    }
  }

  /** Exact addresses first; a range is asked only when no exact one is visible (ztunnel contract 5.4). */
  atAddress(network: NetworkId, ip: IpAddress, clientNamespace: string): Service | undefined {
    return preferred(this.#indices.byVip.members(vipKey({ network, ip })), clientNamespace) ?? this.#inRange(network, ip, clientNamespace);
  }

  /** Whoever they are visible to. Longer ranges come first. */
  *allAtAddress(network: NetworkId, ip: IpAddress): Iterable<Service> {
    yield* this.#indices.byVip.members(vipKey({ network, ip }));
    const lengths = this.#indices.lengths.get(lengthsKey(network, ip)) ?? new Map<number, number>();
    for (const length of [...lengths.keys()].sort((a, b) => b - a)) yield* this.#indices.byRange.members(rangeKey(network, { ip, length }));
  }

  apply(removed: readonly ServiceKey[], upserted: readonly Service[]): ServiceIndex {
    if (removed.length === 0 && upserted.length === 0) return this;
    const batch: Batch = { byHostname: new GroupBatch(), byVip: new GroupBatch(), byRange: new GroupBatch(), ranges: [], wildcards: [] };
    const byKey = this.#indices.byKey.edit((editor) => {
      const replace = (key: ServiceKey, next: Service | undefined) => {
        const last = editor.get(key);
        if (last !== undefined) put(batch, key, last, undefined);
        if (next === undefined) editor.delete(key);
        else {
          editor.set(next);
          put(batch, key, next, next);
        }
      };
      for (const key of removed) replace(key, undefined);
      for (const service of upserted) replace(keyOf(service), service);
    });
    return new ServiceIndex({
      byKey,
      byHostname: this.#indices.byHostname.apply(batch.byHostname),
      byVip: this.#indices.byVip.apply(batch.byVip),
      byRange: this.#indices.byRange.apply(batch.byRange),
      lengths: countLengths(this.#indices.lengths, batch.ranges),
      wildcardLabels: countLabels(this.#indices.wildcardLabels, batch.wildcards),
    });
  }

  /** Own namespace beats length, length beats canonical: a /16 at home wins over a /24 elsewhere (ztunnel contract 5.4). */
  #inRange(network: NetworkId, ip: IpAddress, clientNamespace: string): Service | undefined {
    const lengths = this.#indices.lengths.get(lengthsKey(network, ip));
    if (lengths === undefined) return undefined;
    let chosen: Service | undefined;
    for (const length of [...lengths.keys()].sort((a, b) => b - a)) {
      const candidate = preferred(this.#indices.byRange.members(rangeKey(network, { ip, length })), clientNamespace);
      if (candidate === undefined) continue;
      if (candidate.namespace === clientNamespace) return candidate;
      chosen ??= candidate;
    }
    return chosen;
  }
}

interface Batch {
  readonly byHostname: GroupBatch<ServiceKey, Service>;
  readonly byVip: GroupBatch<ServiceKey, Service>;
  readonly byRange: GroupBatch<ServiceKey, Service>;
  readonly ranges: { readonly key: string; readonly length: number; readonly count: 1 | -1 }[];
  readonly wildcards: { readonly labels: number; readonly count: 1 | -1 }[];
}

function put(batch: Batch, key: ServiceKey, service: Service, value: Service | undefined): void {
  const count = value === undefined ? -1 : 1;
  batch.byHostname.set(service.hostname, key, value);
  if (service.hostname.startsWith("*.")) batch.wildcards.push({ labels: service.hostname.split(".").length, count });
  for (const vip of service.vips) batch.byVip.set(vipKey(vip), key, value);
  for (const { network, range } of service.cidrVips) {
    batch.byRange.set(rangeKey(network, range), key, value);
    batch.ranges.push({ key: lengthsKey(network, range.ip), length: range.length, count });
  }
}

/** Copies only the counts that change; there are at most 129 lengths per network. */
function countLengths(lengths: Indices["lengths"], ranges: Batch["ranges"]): Indices["lengths"] {
  if (ranges.length === 0) return lengths;
  const next = new Map(lengths);
  for (const { key, length, count } of ranges) {
    const counts = new Map(next.get(key));
    const users = (counts.get(length) ?? 0) + count;
    if (users > 0) counts.set(length, users);
    else counts.delete(length);
    if (counts.size > 0) next.set(key, counts);
    else next.delete(key);
  }
  return next;
}

function countLabels(labels: Indices["wildcardLabels"], wildcards: Batch["wildcards"]): Indices["wildcardLabels"] {
  if (wildcards.length === 0) return labels;
  const next = new Map(labels);
  for (const { labels: number, count } of wildcards) {
    const users = (next.get(number) ?? 0) + count;
    if (users > 0) next.set(number, users);
    else next.delete(number);
  }
  return next;
}

/** Among the visible ones: own namespace, then canonical, then the lowest key, so that arrival order never matters. */
function preferred(services: Iterable<Service>, clientNamespace: string): Service | undefined {
  let chosen: Service | undefined;
  let chosenRank = 0;
  for (const service of services) {
    const isHome = service.namespace === clientNamespace;
    if (!isHome && service.visibility === "namespace") continue;
    const rank = (isHome ? 2 : 0) + (service.canonical ? 1 : 0);
    if (chosen === undefined || rank > chosenRank || (rank === chosenRank && keyOf(service) < keyOf(chosen))) {
      chosen = service;
      chosenRank = rank;
    }
  }
  return chosen;
}

function vipKey({ network, ip }: NetworkAddress): string {
  return `${network}/${ip}`;
}

function lengthsKey(network: NetworkId, ip: IpAddress): string {
  return `${network}/${ipFamily(ip)}`;
}

/** Of the range that holds `ip`: the bits after the prefix are cleared. */
function rangeKey(network: NetworkId, { ip, length }: Cidr): string {
  const bytes = ipToBytes(ip);
  for (let index = length >> 3; index < bytes.length; index++) {
    const kept = index === length >> 3 ? length & 7 : 0;
    bytes[index] = (bytes[index] ?? 0) & (0xff << (8 - kept)) & 0xff;
  }
  return `${network}/${ipFromBytes(bytes)}/${length}/${bytes.length}`;
}
