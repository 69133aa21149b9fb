/** Which names the mesh itself answers, and with which addresses: ztunnel contract 8 as a pure function. Everything else belongs to a resolver. */
import { type IpAddress, type IpFamily, ipFamily, type NetworkId } from "./address.ts";
import type { Service } from "./service.ts";
import type { Snapshot } from "./snapshot.ts";
import { serviceKey } from "./workload.ts";

export interface NameQuestion {
  /** Lower case, without the trailing dot. */
  readonly name: string;
  readonly family: IpFamily;
}

/** What the answer depends on besides the name: who asks, and where. */
export interface NameContext {
  readonly snapshot: Snapshot;
  readonly clientNamespace: string;
  /** The network of the client: addresses of others lead nowhere for it. */
  readonly network: NetworkId;
  readonly clusterDomain: string;
  /** What the client's resolver appends to names, in its order. */
  readonly searchDomains: readonly string[];
  /** Breaks ties between namespaces after `canonical` did (PREFERED_SERVICE_NAMESPACE). */
  readonly preferredNamespace: string | undefined;
}

export type NameAnswer =
  /** `canonicalName` is what the client meant when its resolver had appended a search domain: the records stand under it, behind a CNAME. */
  | { readonly kind: "addresses"; readonly addresses: readonly IpAddress[]; readonly canonicalName: string | undefined }
  /** The mesh owns the name and has no record of this family. */
  | { readonly kind: "no-data" }
  | { readonly kind: "foreign" };

/** What a pod's resolver appends by Kubernetes' own rules. */
export function kubernetesSearchDomains(namespace: string, clusterDomain: string): readonly string[] {
  return [`${namespace}.svc.${clusterDomain}`, `svc.${clusterDomain}`, clusterDomain];
}

/** The first of the name's aliases, and of their wildcards, that is a service or a workload by that hostname decides. */
export function resolveName({ name, family }: NameQuestion, context: NameContext): NameAnswer {
  // The root is nobody's service, and would make half a name of every pattern.
  if (name === "") return { kind: "foreign" };
  for (const alias of aliases(name, context)) {
    for (const { hostname, services } of context.snapshot.servicesNamed(alias.name)) {
      const isWildcard = hostname !== alias.name;
      const service = chosen(services, context);
      const addresses =
        service !== undefined ? serviceAddresses(service, family, context) : isWildcard ? undefined : workloadAddresses(hostname, family, context);
      if (addresses === undefined) continue;
      if (addresses.length === 0) return { kind: "no-data" };
      // A wildcard's records stand under the name that was asked for: the pattern itself is no name to be led to.
      return { kind: "addresses", addresses, canonicalName: isWildcard ? undefined : alias.stripped };
    }
  }
  return { kind: "foreign" };
}

interface Alias {
  readonly name: string;
  /** The name before a search domain was appended to it. */
  readonly stripped: string | undefined;
}

/** The name itself and what it may stand for, then the same for each search domain that may have been appended; the first of equal ones counts. */
function* aliases(name: string, context: NameContext): Iterable<Alias> {
  const seen = new Set<string>();
  for (const { base, stripped } of bases(name, context)) {
    for (const candidate of [base, ...kubernetesNames(base, context)]) {
      if (seen.has(candidate)) continue;
      seen.add(candidate);
      yield { name: candidate, stripped };
    }
  }
}

function* bases(name: string, { searchDomains }: NameContext): Iterable<{ readonly base: string; readonly stripped: string | undefined }> {
  yield { base: name, stripped: undefined };
  for (const domain of searchDomains) {
    if (name.length <= domain.length + 1 || !name.endsWith(`.${domain}`)) continue;
    const stripped = name.slice(0, -domain.length - 1);
    yield { base: stripped, stripped };
  }
}

/** What a short name means in Kubernetes, by its number of labels. */
function kubernetesNames(name: string, { clientNamespace, clusterDomain }: NameContext): readonly string[] {
  const own = `${name}.${clientNamespace}.svc.${clusterDomain}`;
  const elsewhere = `${name}.svc.${clusterDomain}`;
  const whole = name.endsWith(".svc") ? [`${name}.${clusterDomain}`] : [];
  switch (name.split(".").length) {
    case 1:
      return [own];
    case 2:
      return [elsewhere, own];
    case 3:
      return [...whole, elsewhere];
    case 4:
      return whole;
    default:
      return [];
  }
}

/** Addresses of a workload with this hostname; undefined when there is none. One that has only a name is for a resolver to find. */
function workloadAddresses(hostname: string, family: IpFamily, { snapshot, clientNamespace, network }: NameContext): readonly IpAddress[] | undefined {
  const workload = snapshot.workloadByHostname(clientNamespace, hostname);
  if (workload === undefined || workload.addresses.length === 0 || workload.network !== network) return undefined;
  return workload.addresses.filter((ip) => ipFamily(ip) === family);
}

function serviceAddresses(service: Service, family: IpFamily, { snapshot, network }: NameContext): readonly IpAddress[] {
  if (service.ipFamilies === "ipv4" && family === "ipv6") return [];
  if (service.ipFamilies === "ipv6" && family === "ipv4") return [];
  const addresses =
    service.vips.length > 0 ? service.vips.flatMap((vip) => (vip.network === network ? vip.ip : [])) : endpointAddresses(service, family, snapshot);
  return [...new Set(addresses.filter((ip) => ipFamily(ip) === family))];
}

/** A headless service is its endpoints, each with one address of the family. */
function endpointAddresses(service: Service, family: IpFamily, snapshot: Snapshot): readonly IpAddress[] {
  const allowsUnhealthy = service.loadBalancing.healthPolicy === "allow-all";
  return [...snapshot.endpoints(serviceKey(service.namespace, service.hostname))].flatMap(
    ({ addresses, status }) => (status === "healthy" || allowsUnhealthy ? addresses.find((ip) => ipFamily(ip) === family) : undefined) ?? [],
  );
}

/** Own namespace, then canonical, then the preferred namespace; the lowest key decides the rest, so that arrival order never matters. */
function chosen(services: Iterable<Service>, context: NameContext): Service | undefined {
  let best: Service | undefined;
  let bestRank = -1;
  for (const service of services) {
    if (!answerable(service, context)) continue;
    const { namespace, canonical } = service;
    const rank = (namespace === context.clientNamespace ? 4 : 0) + (canonical ? 2 : 0) + (namespace === context.preferredNamespace ? 1 : 0);
    if (rank > bestRank || (rank === bestRank && best !== undefined && namespace < best.namespace)) {
      best = service;
      bestRank = rank;
    }
  }
  return best;
}

/** Without addresses of its own only a headless service of Kubernetes is known in full; for any other a resolver knows better. */
function answerable({ namespace, visibility, vips, hostname }: Service, { clientNamespace, clusterDomain }: NameContext): boolean {
  if (visibility === "namespace" && namespace !== clientNamespace) return false;
  return vips.length > 0 || hostname.endsWith(`.svc.${clusterDomain}`);
}
