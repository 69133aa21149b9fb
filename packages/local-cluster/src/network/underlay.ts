/** The network under the nodes: one namespace with a bridge, every node and one outside host plugged into it. Nothing touches the root namespace. */
import type { Ledger } from "../ledger.ts";
import { apiServerUnderlayAddress, type Family, familyOf, type NodeAddresses, outsideAddress, serviceRanges, underlayPrefix } from "./address-plan.ts";
import { createNamespace, forwardingSysctls, ipBatch } from "./namespaces.ts";

export interface Underlay {
  readonly name: string;
  readonly namespacePath: string;
  readonly bridge: string;
}

export interface OutsideHost {
  readonly name: string;
  readonly namespacePath: string;
  readonly addresses: readonly string[];
}

const underlayBridge = "underlay0";
const bridgeMac = "02:fa:00:00:ff:01";

/** The namespace with the bridge, at the address where the API server listens for the cluster's inside. */
export async function createUnderlay(ledger: Ledger, cluster: string, families: readonly Family[]): Promise<Underlay> {
  const name = `${cluster}-underlay`;
  const namespacePath = await createNamespace(ledger, name, forwardingSysctls);
  await ipBatch(name, [
    `link add ${underlayBridge} address ${bridgeMac} type bridge mcast_snooping 0`,
    // Promiscuous, so that a capture on the bridge also sees what only passes through it.
    `link set ${underlayBridge} promisc on up`,
    ...families.map((family) => addressCommand(apiServerUnderlayAddress[family], underlayPrefix[family], underlayBridge)),
  ]);
  return { name, namespacePath, bridge: underlayBridge };
}

/** A node: its uplink into the underlay, a bridge for its pods, and routes to the pods of the nodes that exist already. */
export async function createNodeNetwork(
  ledger: Ledger,
  cluster: string,
  underlay: Underlay,
  node: NodeAddresses,
): Promise<{ name: string; namespacePath: string }> {
  const name = `${cluster}-${node.name}`;
  const namespacePath = await createNamespace(ledger, name, forwardingSysctls);
  await ipBatch(underlay.name, [
    `link add n${node.index} type veth peer name eth0 netns ${name}`,
    `link set n${node.index} master ${underlay.bridge}`,
    `link set n${node.index} up`,
    ...podRoutes(node),
  ]);
  await ipBatch(name, [
    "link set eth0 up",
    ...node.underlay.map(({ ip, prefix }) => addressCommand(ip, prefix, "eth0")),
    `link add cni0 address ${node.bridgeMac} type bridge mcast_snooping 0`,
    "link set cni0 up",
    ...node.pods.map(({ gateway, prefix }) => addressCommand(gateway, prefix, "cni0")),
    // The node's own calls to a service address need a route before the rules can translate them.
    ...node.underlay.map(({ family }) => routeCommand(serviceRanges[family], "dev eth0")),
  ]);
  return { name, namespacePath };
}

/** Full mesh of routes: every node, and the outside host, reaches every pod range through its node. */
export async function connectNodes(cluster: string, nodes: readonly NodeAddresses[], outside: OutsideHost): Promise<void> {
  for (const node of nodes) {
    const routes = nodes.filter((other) => other !== node).flatMap(podRoutes);
    if (routes.length > 0) await ipBatch(`${cluster}-${node.name}`, routes);
  }
  await ipBatch(outside.name, nodes.flatMap(podRoutes));
}

/** A host on the underlay that is neither node nor pod: the world outside the cluster. */
export async function createOutsideHost(ledger: Ledger, cluster: string, underlay: Underlay, families: readonly Family[]): Promise<OutsideHost> {
  const name = `${cluster}-outside`;
  const namespacePath = await createNamespace(ledger, name);
  await ipBatch(underlay.name, [
    `link add outside type veth peer name eth0 netns ${name}`,
    `link set outside master ${underlay.bridge}`,
    "link set outside up",
  ]);
  const addresses = families.map((family) => outsideAddress[family]);
  await ipBatch(name, ["link set eth0 up", ...families.map((family) => addressCommand(outsideAddress[family], underlayPrefix[family], "eth0"))]);
  return { name, namespacePath, addresses };
}

function podRoutes(node: NodeAddresses): string[] {
  return node.pods.flatMap(({ family, cidr }) => {
    const via = node.underlay.find((address) => address.family === family);
    return via === undefined ? [] : [routeCommand(cidr, `via ${via.ip}`)];
  });
}

function addressCommand(ip: string, prefix: number, device: string): string {
  return `addr add ${ip}/${prefix} dev ${device}${familyOf(ip) === "ipv6" ? " nodad" : ""}`;
}

function routeCommand(destination: string, how: string): string {
  return `route replace ${destination} ${how}`;
}
