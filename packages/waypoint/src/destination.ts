/** What a CONNECT asks for among what this waypoint serves. Pure: an address or a name that is not bound here leads nowhere. */
import type { Authority } from "@fairway/hbone";
import { type IpAddress, parseIp, type ServedPort, type ServedTarget, type SocketAddress, type WaypointConfig } from "@fairway/model";

export type Destination =
  | { readonly kind: "served"; readonly target: ServedTarget; readonly port: ServedPort; readonly address: SocketAddress }
  /** Not ours: 400, flag NR. */
  | { readonly kind: "not-bound"; readonly message: string }
  /** Ours, and not ready to be served: 503. */
  | { readonly kind: "not-programmed"; readonly message: string };

/** Stands for a service without an address of its own. */
const noAddress: IpAddress = parseIp("0.0.0.0");

export function destinationOf(config: WaypointConfig, authority: Authority): Destination {
  const asked = authority.kind === "address" ? authority.address.port : authority.port;
  const index = indexOf(config.targets);
  const target = authority.kind === "address" ? index.byAddress.get(authority.address.ip) : index.byHostname.get(authority.hostname.toLowerCase());
  if (target === undefined) return { kind: "not-bound", message: "no service or workload of this waypoint has this address" };
  const port = portOf(target, asked);
  if (port === undefined) return { kind: "not-bound", message: `${target.name} has no port ${asked}` };
  const ready = readinessOf(config, target, port);
  if (ready !== undefined) return { kind: "not-programmed", message: ready };
  const address = authority.kind === "address" ? authority.address : { ip: target.addresses[0] ?? noAddress, port: asked };
  return { kind: "served", target, port, address };
}

/** The same target and port in another configuration: what a connection that goes on is governed by. */
export function destinationNow(config: WaypointConfig, { name }: ServedTarget, { port: asked }: ServedPort, address: SocketAddress): Destination {
  const target = config.targets.get(name);
  if (target === undefined) return { kind: "not-bound", message: `${name} is not bound to this waypoint any more` };
  const port = portOf(target, asked === 0 ? address.port : asked);
  if (port === undefined) return { kind: "not-bound", message: `${name} has no port ${asked} any more` };
  const ready = readinessOf(config, target, port);
  return ready === undefined ? { kind: "served", target, port, address } : { kind: "not-programmed", message: ready };
}

function portOf({ ports, anyPort }: ServedTarget, asked: number): ServedPort | undefined {
  return ports.find(({ port }) => port === asked) ?? anyPort;
}

/** Bytes that can be HTTP need routes; without them policy could not be told from its absence. */
function readinessOf({ routeTables }: WaypointConfig, { name }: ServedTarget, { protocol, routes, port }: ServedPort): string | undefined {
  if (protocol === "tcp") return undefined;
  return routes !== undefined && routeTables.has(routes) ? undefined : `the routes of ${name} port ${port} are not known yet`;
}

interface TargetIndex {
  readonly byAddress: ReadonlyMap<IpAddress, ServedTarget>;
  readonly byHostname: ReadonlyMap<string, ServedTarget>;
}

/** Targets are replaced as a whole, so an index is good for as long as its map. */
const indices = new WeakMap<WaypointConfig["targets"], TargetIndex>();

function indexOf(targets: WaypointConfig["targets"]): TargetIndex {
  const known = indices.get(targets);
  if (known !== undefined) return known;
  const byAddress = new Map<IpAddress, ServedTarget>();
  const byHostname = new Map<string, ServedTarget>();
  for (const target of targets.values()) {
    for (const ip of target.addresses) {
      // A workload's own address is addressed as such, even where a headless service claims it too.
      const other = byAddress.get(ip);
      if (other === undefined || (other.kind === "service" && target.kind === "workload")) byAddress.set(ip, target);
    }
    if (target.kind === "service" && !byHostname.has(target.hostname.toLowerCase())) byHostname.set(target.hostname.toLowerCase(), target);
  }
  const index = { byAddress, byHostname };
  indices.set(targets, index);
  return index;
}
