/** Choosing an endpoint of a service, and an address of the endpoint (ztunnel contract 5.2). One random draw per choice, no memory. */
import { type IpAddress, ipFamily } from "./address.ts";
import type { ResolveContext } from "./resolve.ts";
import type { LoadBalancing, LocalityScope, Service } from "./service.ts";
import { serviceKey, type Workload } from "./workload.ts";

/** A workload chosen to be dialled. */
export interface Upstream {
  readonly workload: Workload;
  /** The service that led to it. */
  readonly service: Service | undefined;
  /** The port asked of it, mapped by the service. */
  readonly port: number;
  /** Undefined: the workload has a hostname only, or nothing but a gateway. */
  readonly ip: IpAddress | undefined;
}

export interface BalanceRequest {
  readonly source: Workload;
  readonly service: Service;
  /** Of the service. */
  readonly port: number;
  /** The address the client asked for: used when the endpoint owns it, otherwise its family is preferred. */
  readonly wanted: IpAddress;
  /** A waypoint listens behind its application tunnel even when its service does not list the port. */
  readonly mode: "standard" | "waypoint";
}

/** Undefined: no endpoint may be used. */
export function balance(context: ResolveContext, request: BalanceRequest): Upstream | undefined {
  const { source, service, port, wanted, mode } = request;
  const candidates: Candidate[] = [];
  for (const workload of context.snapshot.endpoints(serviceKey(service.namespace, service.hostname))) {
    const targetPort = isUsable(workload, service, source) ? mapPort(workload, service, port, mode) : undefined;
    if (targetPort !== undefined) candidates.push({ workload, port: targetPort });
  }
  const chosen = pickByWeight(nearest(candidates, service.loadBalancing, source), ({ workload }) => workload.capacity, context.random);
  return chosen && { workload: chosen.workload, service, port: chosen.port, ip: chooseIp(chosen.workload, service, wanted) };
}

/** Weights of 0 receive nothing. Undefined when there is nothing to choose from. */
export function pickByWeight<T>(items: readonly T[], weightOf: (item: T) => number, random: () => number): T | undefined {
  let total = 0;
  for (const item of items) total += weightOf(item);
  if (total <= 0) return undefined;
  let left = random() * total;
  let last: T | undefined;
  for (const item of items) {
    if (weightOf(item) <= 0) continue;
    last = item;
    left -= weightOf(item);
    if (left < 0) break;
  }
  return last;
}

/** Which of the workload's addresses to dial for a client that asked for `wanted`. */
export function chooseIp({ addresses }: Workload, service: Service | undefined, wanted: IpAddress): IpAddress | undefined {
  if (addresses.includes(wanted)) return wanted;
  const families = service?.ipFamilies;
  const usable = families === "ipv4" || families === "ipv6" ? addresses.filter((ip) => ipFamily(ip) === families) : addresses;
  return usable.find((ip) => ipFamily(ip) === ipFamily(wanted)) ?? usable[0];
}

interface Candidate {
  readonly workload: Workload;
  readonly port: number;
}

function isUsable(workload: Workload, service: Service, source: Workload): boolean {
  if (workload.status === "unhealthy" && service.loadBalancing.healthPolicy === "only-healthy") return false;
  const isReachable = workload.addresses.length > 0 || workload.hostname !== "";
  return isReachable || (workload.network !== source.network && workload.networkGateway !== undefined);
}

/** The endpoint's own mapping, else the service's; 0 maps to nothing. */
function mapPort(workload: Workload, service: Service, port: number, mode: BalanceRequest["mode"]): number | undefined {
  const ofService = service.ports.find(({ servicePort }) => servicePort === port);
  if (ofService === undefined && mode === "standard") return undefined;
  const ofEndpoint = workload.services.get(serviceKey(service.namespace, service.hostname))?.find(({ servicePort }) => servicePort === port);
  const target = ofEndpoint?.targetPort || ofService?.targetPort;
  if (target) return target;
  return mode === "waypoint" && workload.applicationTunnel !== undefined ? port : undefined;
}

/** STRICT and FAILOVER keep only the endpoints that share the most leading scopes with the source. */
function nearest(candidates: readonly Candidate[], { mode, routingPreference }: LoadBalancing, source: Workload): readonly Candidate[] {
  if (mode !== "strict" && mode !== "failover") return candidates;
  let highest = mode === "strict" ? routingPreference.length : 0;
  const ranked = candidates.map((candidate) => ({ candidate, rank: localityRank(routingPreference, source, candidate.workload) }));
  for (const { rank } of ranked) highest = Math.max(highest, rank);
  return ranked.filter(({ rank }) => rank === highest).map(({ candidate }) => candidate);
}

/**
 * The number of leading scopes that match. A network in first place does not end the count when it differs, and counts for all scopes
 * when it is the same: a remote endpoint never outranks a local one, and remote ones are still ordered by locality.
 */
function localityRank(scopes: readonly LocalityScope[], source: Workload, workload: Workload): number {
  let rank = 0;
  for (const [index, scope] of scopes.entries()) {
    const isSame = scopeOf(source, scope) === scopeOf(workload, scope);
    if (index === 0 && scope === "network") rank += isSame ? scopes.length : 0;
    else if (isSame) rank++;
    else break;
  }
  return rank;
}

function scopeOf(workload: Workload, scope: LocalityScope): string {
  switch (scope) {
    case "region":
      return workload.locality?.region ?? "";
    case "zone":
      return workload.locality?.zone ?? "";
    case "subzone":
      return workload.locality?.subzone ?? "";
    case "node":
      return workload.node;
    case "cluster":
      return workload.clusterId;
    case "network":
      return workload.network;
  }
}
