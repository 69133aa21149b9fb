/** Which address everything on the machine-sized data centre has. Pure. */
import { MeshError } from "@fairway/runtime";

export type Family = "ipv4" | "ipv6";

export interface NodeAddresses {
  readonly name: string;
  /** 1 for the first node; the third part of its pod range. */
  readonly index: number;
  readonly underlay: readonly { readonly family: Family; readonly ip: string; readonly prefix: number }[];
  readonly pods: readonly { readonly family: Family; readonly cidr: string; readonly gateway: string; readonly prefix: number }[];
  /** The node bridge's own hardware address: a bridge without one takes over those of its ports, and pods would keep a stale neighbour. */
  readonly bridgeMac: string;
}

/** Nodes are 172.30.0.11 and up; more would run into the outside host's address. */
const maxNodes = 100;
export const apiServerUnderlayAddress = { ipv4: "172.30.0.1", ipv6: "fd00:172:30::1" } as const;
export const apiServerUnderlayPort = 6443;
export const outsideAddress = { ipv4: "172.30.0.200", ipv6: "fd00:172:30::c8" } as const;
export const serviceRanges = { ipv4: "10.96.0.0/16", ipv6: "fd00:10:96::/112" } as const;
export const clusterDnsAddress = "10.96.0.10";
export const underlayPrefix = { ipv4: 24, ipv6: 64 } as const;

/** The addresses of node `index` (from 1). Throws LOCAL_CLUSTER_TOO_MANY_NODES. */
export function planNode(index: number, families: readonly Family[]): NodeAddresses {
  if (index < 1 || index > maxNodes) throw new MeshError("LOCAL_CLUSTER_TOO_MANY_NODES", `a local cluster has 1 to ${maxNodes} nodes, not ${index}`);
  const octet = index.toString(16).padStart(2, "0");
  return {
    name: `node-${index}`,
    index,
    underlay: families.map((family) =>
      family === "ipv4" ? { family, ip: `172.30.0.${10 + index}`, prefix: 24 } : { family, ip: `fd00:172:30::${(10 + index).toString(16)}`, prefix: 64 },
    ),
    pods: families.map((family) =>
      family === "ipv4"
        ? { family, cidr: `10.244.${index}.0/24`, gateway: `10.244.${index}.1`, prefix: 24 }
        : { family, cidr: `fd00:10:244:${index.toString(16)}::/64`, gateway: `fd00:10:244:${index.toString(16)}::1`, prefix: 64 },
    ),
    bridgeMac: `02:fa:00:00:00:${octet}`,
  };
}

/** The pod address with a given host number inside a node's range; both families carry the same number. */
export function podAddress(node: NodeAddresses, family: Family, host: number): string {
  return family === "ipv4" ? `10.244.${node.index}.${host}` : `fd00:10:244:${node.index.toString(16)}::${host.toString(16)}`;
}

/** The family an address literal belongs to. */
export function familyOf(ip: string): Family {
  return ip.includes(":") ? "ipv6" : "ipv4";
}
