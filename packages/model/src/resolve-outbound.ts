/** Where a connection that a captured pod opens goes (ztunnel contract 5.1 to 5.5). Pure: same facts and draws, same route. */
import { formatSocketAddress, isLoopback, type SocketAddress } from "./address.ts";
import { balance, chooseIp, type Upstream } from "./balance.ts";
import { chooseWaypoint, type GatewayResolution, isBehind, resolveGateway } from "./gateway.ts";
import type { SpiffeId } from "./identity.ts";
import type { NextHop, OutboundDenial, OutboundRoute, OutboundTarget, ResolveContext } from "./resolve.ts";
import type { Service } from "./service.ts";
import { type GatewayAddress, type Workload, workloadIdentity } from "./workload.ts";

/** Where every workload of the mesh accepts tunnels. */
const hbonePort = 15_008;

/** Everything that the steps of one decision share. */
interface Question {
  readonly context: ResolveContext;
  readonly source: Workload;
  readonly destination: SocketAddress;
}

/** The steps are numbered as in ztunnel contract 5.1. */
export function resolveOutbound(context: ResolveContext, source: Workload, destination: SocketAddress): OutboundRoute {
  const question: Question = { context, source, destination };
  const { snapshot } = context;
  if (isLoopback(destination.ip) && context.ownPorts.has(destination.port)) {
    return deny("self-call", "attempted recursive call to ourselves", nobody);
  }

  // 3: a workload's own address is addressed as such, even where a service claims it too.
  const isWorkload = snapshot.workloadByAddress(context.network, destination.ip) !== undefined;
  const addressed = isWorkload ? undefined : snapshot.serviceByAddress(context.network, destination.ip, source.namespace);

  // 4
  const waypoint = addressed && chooseWaypoint(addressed, context.random);
  if (addressed !== undefined && waypoint !== undefined) return throughServiceWaypoint(question, addressed, waypoint);

  // 5, 6
  const service = snapshot.serviceByAddress(source.network, destination.ip, source.namespace);
  if (service?.loadBalancing.mode === "passthrough") return { kind: "passthrough", to: destination, target: { workload: undefined, service } };
  const upstream = service === undefined ? workloadUpstream(question) : serviceUpstream(question, service);
  if (upstream === undefined) {
    if (service === undefined) return { kind: "passthrough", to: destination, target: nobody };
    return deny("no-healthy-upstream", `no healthy upstream: ${nameOf(service)} port ${destination.port}`, { workload: undefined, service });
  }

  // 7
  if (upstream.workload.network !== source.network) {
    if (addressed === undefined) return deny("no-service-for-target", "no service for target address: only services cross networks", targetOf(upstream));
    return acrossNetworks(question, upstream, addressed, addressed.subjectAltNames);
  }

  // 8
  if (upstream.workload.waypoint !== undefined && !isBehind(context, upstream.workload.waypoint, upstream.workload.namespace, source)) {
    return throughWorkloadWaypoint(question, upstream, upstream.workload.waypoint, addressed !== undefined);
  }
  return direct(upstream);
}

const nobody: OutboundTarget = { workload: undefined, service: undefined };

function serviceUpstream({ context, source, destination }: Question, service: Service): Upstream | undefined {
  return balance(context, { source, service, port: destination.port, wanted: destination.ip, mode: "standard" });
}

function workloadUpstream({ context, source, destination }: Question): Upstream | undefined {
  const workload = context.snapshot.workloadByAddress(source.network, destination.ip);
  return workload && { workload, service: undefined, port: destination.port, ip: chooseIp(workload, undefined, destination.ip) };
}

/** Step 4. Fails closed: without its waypoint, traffic that needs the waypoint's policy goes nowhere. */
function throughServiceWaypoint(question: Question, service: Service, address: GatewayAddress): OutboundRoute {
  const { context, source, destination } = question;
  const found = resolveGateway(context, { source, address, namespace: service.namespace, wanted: destination.ip, mode: "waypoint" });
  if (found.kind !== "found") return waypointDenial(found, address, nameOf(service), { workload: undefined, service });
  const { upstream } = found;
  if (upstream.workload.network !== source.network) return acrossNetworks(question, upstream, service, upstream.service?.subjectAltNames ?? []);
  return tunnelToWaypoint(upstream, formatSocketAddress(destination), service);
}

/**
 * Step 8. When a service without a waypoint led to the workload, its waypoint (bound to a service account, controller contract 3.11) is
 * asked for the endpoint that was chosen here: it must not balance again, to workloads that may not be its own.
 */
function throughWorkloadWaypoint(question: Question, endpoint: Upstream, address: GatewayAddress, isServiceAddressed: boolean): OutboundRoute {
  const { context, source, destination } = question;
  const { workload } = endpoint;
  const hop = hopTo(endpoint, endpoint.port);
  if (hop === undefined) return noDestination(endpoint);
  const found = resolveGateway(context, { source, address, namespace: workload.namespace, wanted: destination.ip, mode: "waypoint" });
  if (found.kind !== "found") return waypointDenial(found, address, workload.uid, targetOf(endpoint));
  if (found.upstream.workload.network !== source.network) {
    return deny("no-service-for-target", `the waypoint of ${workload.uid} is on another network: only services cross networks`, targetOf(endpoint));
  }
  const authority = isServiceAddressed ? authorityOf(hop) : formatSocketAddress(destination);
  return tunnelToWaypoint(found.upstream, authority, endpoint.service);
}

function tunnelToWaypoint(waypoint: Upstream, authority: string, service: Service | undefined): OutboundRoute {
  const target: OutboundTarget = { workload: waypoint.workload, service };
  const nextHop = hopTo(waypoint, waypoint.port);
  if (nextHop === undefined) return deny("waypoint-not-ready", `waypoint ${waypoint.workload.uid} has no address`, target);
  return { kind: "hbone", nextHop, authority, expected: expectedOf(waypoint), target, via: "waypoint" };
}

/** Contract 5.5: an outer tunnel to the gateway of the far network; both tunnels ask for the service by name. */
function acrossNetworks(question: Question, far: Upstream, service: Service, innerExpected: readonly SpiffeId[]): OutboundRoute {
  const { context, source, destination } = question;
  const { networkGateway: address, namespace, network, uid } = far.workload;
  const target: OutboundTarget = { workload: far.workload, service };
  if (address === undefined) return deny("unknown-gateway", `network ${network} has no gateway: ${uid} cannot be reached from here`, target);
  const found = resolveGateway(context, { source, address, namespace, wanted: destination.ip, mode: "standard" });
  if (found.kind !== "found") {
    const state = found.kind === "unknown" ? "is not known" : "has no endpoint that listens on its port";
    return deny("unknown-gateway", `gateway ${describe(address)} of network ${network} ${state}`, target);
  }
  const nextHop = hopTo(found.upstream, found.upstream.port);
  if (nextHop === undefined) return noDestination(found.upstream);
  return {
    kind: "double-hbone",
    nextHop,
    authority: `${service.hostname}:${destination.port}`,
    expected: expectedOf(found.upstream),
    innerExpected,
    target: { workload: found.upstream.workload, service },
  };
}

/** Steps 9 to 11. */
function direct(upstream: Upstream): OutboundRoute {
  const { workload, port } = upstream;
  const target = targetOf(upstream);
  const application = hopTo(upstream, port);
  const tunnel = hopTo(upstream, hbonePort);
  if (application === undefined || tunnel === undefined) return noDestination(upstream);
  if (workload.tunnelProtocol === "none") return { kind: "tcp", nextHop: application, target };
  return { kind: "hbone", nextHop: tunnel, authority: authorityOf(application), expected: expectedOf(upstream), target, via: "endpoint" };
}

function hopTo({ workload, ip }: Upstream, port: number): NextHop | undefined {
  if (ip !== undefined) return { kind: "address", address: { ip, port } };
  if (workload.addresses.length === 0 && workload.hostname !== "") return { kind: "hostname", hostname: workload.hostname, port };
  return undefined;
}

function authorityOf(hop: NextHop): string {
  return hop.kind === "address" ? formatSocketAddress(hop.address) : `${hop.hostname}:${hop.port}`;
}

/** The identities of the service's endpoints as published, and the chosen workload's own (ztunnel contract 1.2). */
function expectedOf({ workload, service }: Upstream): readonly SpiffeId[] {
  return [...new Set([...(service?.subjectAltNames ?? []), workloadIdentity(workload)])];
}

function targetOf({ workload, service }: Upstream): OutboundTarget {
  return { workload, service };
}

function noDestination(upstream: Upstream): OutboundRoute {
  return deny("no-valid-destination", `no valid routing destination: ${upstream.workload.uid} has no usable address`, targetOf(upstream));
}

function waypointDenial(found: Exclude<GatewayResolution, { kind: "found" }>, address: GatewayAddress, owner: string, target: OutboundTarget): OutboundRoute {
  if (found.kind === "unknown") return deny("unknown-waypoint", `unknown waypoint ${describe(address)}, required by ${owner}`, target);
  return deny("waypoint-not-ready", `waypoint ${describe(address)}, required by ${owner}, has no healthy endpoint`, target);
}

function deny(reason: OutboundDenial, message: string, target: OutboundTarget): OutboundRoute {
  return { kind: "deny", reason, message, target };
}

function nameOf({ namespace, hostname }: Service): string {
  return `${namespace}/${hostname}`;
}

function describe({ destination, hbonePort: port }: GatewayAddress): string {
  return destination.kind === "hostname"
    ? `${destination.namespace}/${destination.hostname}:${port}`
    : `${destination.network}/${formatSocketAddress({ ip: destination.ip, port })}`;
}
