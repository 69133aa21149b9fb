/** A node as its kubelet knows it: where its files are, its network, and what it runs containers with. */
import type { Collection, KubeClient } from "@fairway/kube";
import type { PodNetwork } from "@fairway/linux";
import type { Clock, Logger } from "@fairway/runtime";
import type { PodCgroups } from "../container/cgroups.ts";
import type { Machine } from "../container/machine.ts";
import type { ImageCatalog } from "../images.ts";
import type { Ledger } from "../ledger.ts";
import type { NodeAddresses } from "../network/address-plan.ts";
import type { Cni } from "../network/cni.ts";
import type { ConfigMap, Pod, Secret } from "../resources.ts";
import type { NodePaths } from "./volumes.ts";

export interface NodeContext {
  /** Prefix of everything this cluster names on the machine. */
  readonly cluster: string;
  readonly addresses: NodeAddresses;
  readonly paths: NodePaths;
  /** `<stateDir>/nodes/<name>`: the root directory and the pods' files. */
  readonly directory: string;
  readonly namespacePath: string;
  /** Sockets in the node's namespace: probes come from here. */
  readonly network: PodNetwork;
  readonly cni: Cni;
  readonly machine: Machine;
  readonly cgroups: PodCgroups;
  readonly ledger: Ledger;
  readonly images: ImageCatalog;
  readonly client: KubeClient;
  readonly configMaps: Collection<ConfigMap>;
  readonly secrets: Collection<Secret>;
  readonly pods: Collection<Pod>;
  readonly clock: Clock;
  readonly log: Logger;
  /** Random bytes for ids. */
  readonly randomId: () => string;
}

/** The node's own addresses, in family order. */
export function hostIps(node: NodeContext): string[] {
  return node.addresses.underlay.map(({ ip }) => ip);
}
