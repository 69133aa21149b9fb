/** From the address of a waypoint or a network gateway to the workload that is dialled (ztunnel contract 5.3). */
import type { IpAddress } from "./address.ts";
import { balance, chooseIp, pickByWeight, type Upstream } from "./balance.ts";
import type { ResolveContext } from "./resolve.ts";
import type { Service } from "./service.ts";
import { type GatewayAddress, serviceKey, type Workload } from "./workload.ts";

export interface GatewayRequest {
  readonly source: Workload;
  readonly address: GatewayAddress;
  /**
   * Namespace of the object that names the gateway. It, not the client, must be able to see the gateway: whoever binds traffic to a
   * waypoint decides that clients go there.
   */
  readonly namespace: string;
  readonly wanted: IpAddress;
  readonly mode: "standard" | "waypoint";
}

export type GatewayResolution =
  | { readonly kind: "found"; readonly upstream: Upstream }
  /** Nothing in the mesh has this address. */
  | { readonly kind: "unknown" }
  /** It is a service of the mesh, and none of its endpoints may be used now. */
  | { readonly kind: "not-ready"; readonly service: Service };

export function resolveGateway(context: ResolveContext, request: GatewayRequest): GatewayResolution {
  const { snapshot } = context;
  const { source, address, namespace, mode } = request;
  const { destination, hbonePort } = address;
  const wanted = destination.kind === "address" ? destination.ip : request.wanted;
  const service = gatewayService(context, address, namespace);
  if (service !== undefined) {
    const upstream = balance(context, { source, service, port: hbonePort, wanted, mode });
    return upstream === undefined ? { kind: "not-ready", service } : { kind: "found", upstream };
  }
  const workload =
    destination.kind === "address"
      ? snapshot.workloadByAddress(destination.network, destination.ip)
      : snapshot.workloadByHostname(destination.namespace, destination.hostname);
  if (workload === undefined || hbonePort === 0) return { kind: "unknown" };
  return { kind: "found", upstream: { workload, service: undefined, port: hbonePort, ip: chooseIp(workload, undefined, wanted) } };
}

/** The service in front of the gateway's replicas, when its address is one. */
export function gatewayService({ snapshot }: ResolveContext, { destination }: GatewayAddress, namespace: string): Service | undefined {
  if (destination.kind === "hostname") return snapshot.service(serviceKey(destination.namespace, destination.hostname));
  return snapshot.serviceByAddress(destination.network, destination.ip, namespace);
}

/** Whether `workload` is one of the replicas behind a gateway address that was named in `namespace`. */
export function isBehind(context: ResolveContext, address: GatewayAddress, namespace: string, workload: Workload): boolean {
  const { destination } = address;
  const service = gatewayService(context, address, namespace);
  if (service !== undefined) return workload.services.has(serviceKey(service.namespace, service.hostname));
  if (destination.kind === "address") return workload.network === destination.network && workload.addresses.includes(destination.ip);
  return workload.namespace === destination.namespace && workload.hostname === destination.hostname;
}

/** Every waypoint that a client of the service may choose. */
export function waypointsOf({ waypoint, weightedWaypoints }: Service): readonly GatewayAddress[] {
  return [...(waypoint === undefined ? [] : [waypoint]), ...weightedWaypoints.map(({ destination }) => destination)];
}

/** A weighted set overrides the single waypoint, unless it carries no weight at all (ztunnel contract 4.1, Service 13). */
export function chooseWaypoint({ waypoint, weightedWaypoints }: Service, random: () => number): GatewayAddress | undefined {
  if (weightedWaypoints.length === 0) return waypoint;
  return pickByWeight(weightedWaypoints, ({ weight }) => weight, random)?.destination ?? waypoint;
}
