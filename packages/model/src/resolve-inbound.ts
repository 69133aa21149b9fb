/** What a tunnel request to a captured pod asks for, and whether the pod is the right one to ask (ztunnel contract 5B.1, steps 2 to 6). */
import { ipFamily, isPort, type SocketAddress, tryParseSocketAddress } from "./address.ts";
import { isBehind, waypointsOf } from "./gateway.ts";
import type { InboundRejection, InboundRequest, InboundRoute, ResolveContext } from "./resolve.ts";
import type { Service } from "./service.ts";
import { serviceKey, type Workload } from "./workload.ts";

type Authority =
  | { readonly kind: "address"; readonly address: SocketAddress }
  | { readonly kind: "hostname"; readonly hostname: string; readonly port: number };

/** RFC 1035 2.3.4. */
const longestHostname = 253;

/** What the authority means for this pod: a service, if one was asked for, and the port. */
interface Asked {
  readonly service: Service | undefined;
  readonly port: number;
}

/** Policy is the caller's next question, about exactly `to`. */
export function resolveInbound(context: ResolveContext, local: Workload, request: InboundRequest): InboundRoute {
  const authority = parseAuthority(request.authority);
  if (authority === undefined) return reject(400, "bad-authority", "the authority is neither ip:port nor hostname:port");
  if (authority.kind === "address" && !mayAskFor(context, local, request, authority.address)) {
    return reject(400, "ip-mismatch", `ip mismatch: ${request.local.ip} != ${authority.address.ip}`);
  }
  const asked = authority.kind === "address" ? askedByAddress(context, local, request, authority.address) : askedByName(context, local, authority);
  if ("kind" in asked) return asked;
  if (context.ownPorts.has(asked.port)) return reject(503, "self-call", `attempted recursive call to ourselves: port ${asked.port}`);

  const tunnel = local.applicationTunnel;
  const to: SocketAddress = { ip: request.local.ip, port: tunnel?.port ?? asked.port };
  if (tunnel?.protocol !== "proxy") return { kind: "accept", to, loopback: false, proxyHeader: undefined, service: asked.service };
  const destination = authority.kind === "address" ? authority.address : virtualAddress(context, asked.service, authority.port);
  if (destination === undefined) {
    return reject(503, "no-service-address", `${request.authority} has no virtual address, which the application tunnel needs`);
  }
  return { kind: "accept", to, loopback: true, proxyHeader: { destination }, service: asked.service };
}

/** An address, else a name; a port is mandatory (ztunnel contract 1.4). A name has a letter: digits and dots are an address gone wrong. */
function parseAuthority(text: string): Authority | undefined {
  const address = tryParseSocketAddress(text);
  if (address !== undefined) return { kind: "address", address };
  const [hostname = "", digits = "", ...rest] = text.split(":");
  const isName = hostname.length <= longestHostname && /^[\w*][\w.-]*$/.test(hostname) && /[A-Za-z]/.test(hostname);
  const port = /^\d{1,5}$/.test(digits) ? Number(digits) : 0;
  return isName && isPort(port) && rest.length === 0 ? { kind: "hostname", hostname, port } : undefined;
}

/**
 * A client may ask a pod for the pod's own address, for anything when the pod is a tunnelled application (a sandwiched waypoint), and for
 * whatever has this pod as its waypoint.
 */
function mayAskFor(context: ResolveContext, local: Workload, request: InboundRequest, { ip }: SocketAddress): boolean {
  if (ip === request.local.ip || local.applicationTunnel !== undefined) return true;
  const { snapshot, network } = context;
  const workload = snapshot.workloadByAddress(network, ip);
  if (workload !== undefined) return workload.waypoint !== undefined && isBehind(context, workload.waypoint, workload.namespace, local);
  // Which of several services at the address the client meant depends on the client's namespace (ztunnel contract 5.4), not on the waypoint's:
  // a service that only its own namespace sees has its waypoint wherever it says.
  for (const service of snapshot.servicesAtAddress(network, ip)) {
    if (waypointsOf(service).some((waypoint) => isBehind(context, waypoint, service.namespace, local))) return true;
  }
  return false;
}

/** The service is for the labels only: the one the client named, when it is the pod's, else the first that leads to the port. */
function askedByAddress(context: ResolveContext, local: Workload, request: InboundRequest, { port }: SocketAddress): Asked {
  let first: Service | undefined;
  for (const [key, ports] of local.services) {
    const service = context.snapshot.service(key);
    if (service === undefined) continue;
    if (service.hostname === request.forwardedHost) return { service, port };
    if ([...ports, ...service.ports].some(({ targetPort }) => targetPort === port)) first ??= service;
  }
  return { service: first, port };
}

function askedByName({ snapshot }: ResolveContext, local: Workload, authority: Extract<Authority, { kind: "hostname" }>): Asked | InboundRoute {
  const { hostname, port } = authority;
  const service = snapshot.serviceByHostname(hostname, local.namespace);
  if (service === undefined) return reject(503, "unknown-hostname", `no service ${hostname} is known here`);
  const ofEndpoint = local.services.get(serviceKey(service.namespace, service.hostname))?.find(({ servicePort }) => servicePort === port);
  const ofService = service.ports.find(({ servicePort }) => servicePort === port);
  const target = ofEndpoint?.targetPort || ofService?.targetPort;
  if (!target) return reject(503, "no-port-mapping", `port ${port} of ${hostname} leads to no port of this workload`);
  return { service, port: target };
}

/** For the PROXY header: on the same network if possible, IPv4 if possible (ztunnel contract 1.11). */
function virtualAddress({ network }: ResolveContext, service: Service | undefined, port: number): SocketAddress | undefined {
  const score = (vip: Service["vips"][number]) => (vip.network === network ? 2 : 0) + (ipFamily(vip.ip) === "ipv4" ? 1 : 0);
  const [best] = [...(service?.vips ?? [])].sort((a, b) => score(b) - score(a));
  return best && { ip: best.ip, port };
}

function reject(status: 400 | 503, reason: InboundRejection, message: string): InboundRoute {
  return { kind: "reject", status, reason, message };
}
