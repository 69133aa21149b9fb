/**
 * The built-in CNI plugin `local-bridge`: a veth pair from the pod to the node's bridge, and one address per family from the node's range.
 * Pods hold a host route only and send everything to the node, so that traffic between two pods of one node passes the node's rules
 * (service translation, the mesh's probe rewriting) without bridge netfilter.
 */
import { MeshError } from "@fairway/runtime";
import { familyOf, type NodeAddresses, podAddress } from "./address-plan.ts";
import type { CniResult } from "./cni-result.ts";
import { ipBatch } from "./namespaces.ts";

/** Host numbers 2..254: .0 is the network, .1 the gateway, .255 broadcast. */
const firstHost = 2;
const lastHost = 254;

export const bridgePluginType = "local-bridge";

export class BridgePlugin {
  readonly #node: NodeAddresses;
  readonly #nodeNamespace: string;
  readonly #taken = new Map<number, string>();
  #next = firstHost;

  constructor(node: NodeAddresses, nodeNamespace: string) {
    this.#node = node;
    this.#nodeNamespace = nodeNamespace;
  }

  /** CNI ADD. Throws LOCAL_CLUSTER_NO_POD_ADDRESS, LOCAL_CLUSTER_COMMAND_FAILED. */
  async add(request: { containerId: string; podNamespace: string; interfaceName: string; cniVersion: string }): Promise<CniResult> {
    const host = this.#allocate(request.containerId);
    const device = deviceOf(request.containerId);
    try {
      await ipBatch(this.#nodeNamespace, [
        `link add ${device} type veth peer name ${request.interfaceName} netns ${request.podNamespace}`,
        `link set ${device} master cni0`,
        `link set ${device} up`,
      ]);
      const dev = request.interfaceName;
      await ipBatch(request.podNamespace, [
        `link set ${dev} up`,
        ...this.#node.pods.flatMap(({ family, gateway }) =>
          family === "ipv4"
            ? [
                `addr add ${podAddress(this.#node, family, host)}/32 dev ${dev}`,
                `route add ${gateway}/32 dev ${dev} scope link`,
                `route add default via ${gateway} dev ${dev}`,
              ]
            : [
                `addr add ${podAddress(this.#node, family, host)}/128 dev ${dev} nodad`,
                `route add ${gateway}/128 dev ${dev}`,
                `route add default via ${gateway} dev ${dev}`,
              ],
        ),
      ]);
    } catch (thrown) {
      await this.del(request.containerId);
      throw thrown;
    }
    return {
      cniVersion: request.cniVersion,
      interfaces: [{ name: device }, { name: request.interfaceName, sandbox: `/run/netns/${request.podNamespace}` }],
      ips: this.#node.pods.map(({ family, gateway }) => {
        const address = podAddress(this.#node, family, host);
        return { address: `${address}/${familyOf(address) === "ipv4" ? 32 : 128}`, gateway, interface: 1 };
      }),
      routes: this.#node.pods.map(({ family, gateway }) => ({ dst: family === "ipv4" ? "0.0.0.0/0" : "::/0", gw: gateway })),
      dns: {},
    };
  }

  /** CNI DEL: frees the address and removes the pair; what is gone already is fine. */
  async del(containerId: string): Promise<void> {
    for (const [host, holder] of this.#taken) if (holder === containerId) this.#taken.delete(host);
    await ipBatch(this.#nodeNamespace, [`link del ${deviceOf(containerId)}`]).catch(() => undefined);
  }

  /** Goes round the range, so that an address just freed is the last to be given again. */
  #allocate(containerId: string): number {
    for (let tried = firstHost; tried <= lastHost; tried += 1) {
      const host = this.#next;
      this.#next = host === lastHost ? firstHost : host + 1;
      if (this.#taken.has(host)) continue;
      this.#taken.set(host, containerId);
      return host;
    }
    throw new MeshError("LOCAL_CLUSTER_NO_POD_ADDRESS", `${this.#node.name} has no free pod address; a node runs at most ${lastHost - firstHost + 1} pods`);
  }
}

/** Interface names have at most 15 characters. */
function deviceOf(containerId: string): string {
  return `veth${containerId.slice(0, 10)}`;
}
