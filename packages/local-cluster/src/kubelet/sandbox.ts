/** The pod's network: a namespace of its own wired by CNI, or the node's when the pod asks for the host network. */
import { MeshError } from "@fairway/runtime";
import { createNamespace, deleteNamespace, namespacePath } from "../network/namespaces.ts";
import type { Pod } from "../resources.ts";
import { hostIps, type NodeContext } from "./node.ts";

export interface Sandbox {
  readonly id: string;
  readonly namespacePath: string;
  readonly ips: readonly string[];
  /** Undoes it: CNI DEL, then the namespace. Returns what the plugins complained about. */
  remove(signal: AbortSignal): Promise<readonly string[]>;
}

/** How long the plugins of one pod may take together. */
const cniTimeoutMs = 60_000;

/** Throws LOCAL_CLUSTER_CNI_FAILED, LOCAL_CLUSTER_CNI_NOT_CONFIGURED, LOCAL_CLUSTER_COMMAND_FAILED; nothing is left then. */
export async function createSandbox(node: NodeContext, pod: Pod, signal: AbortSignal): Promise<Sandbox> {
  const id = node.randomId();
  if (pod.spec.hostNetwork === true) {
    return { id, namespacePath: node.namespacePath, ips: hostIps(node), remove: () => Promise.resolve([]) };
  }
  const name = `${node.cluster}-pod-${id.slice(0, 12)}`;
  // Node gives pods this as well: unprivileged programs may listen below 1024, and ping.
  await createNamespace(node.ledger, name, { "net.ipv4.ip_unprivileged_port_start": "0", ...podSysctls(pod) });
  const attachment = {
    containerId: id,
    namespace: name,
    pod: { namespace: pod.metadata.namespace ?? "", name: pod.metadata.name, uid: pod.metadata.uid ?? "" },
  };
  try {
    const result = await node.cni.add(attachment, { signal: AbortSignal.any([signal, AbortSignal.timeout(cniTimeoutMs)]) });
    const ips = (result.ips ?? []).map(({ address }) => address.split("/")[0] ?? "").filter((ip) => ip !== "");
    if (ips.length === 0) throw new MeshError("LOCAL_CLUSTER_CNI_FAILED", "the CNI plugins gave the pod no address");
    return {
      id,
      namespacePath: namespacePath(name),
      ips,
      remove: async (removal) => {
        const problems = await node.cni.del(attachment, { signal: removal });
        await deleteNamespace(name);
        return problems;
      },
    };
  } catch (thrown) {
    await deleteNamespace(name);
    throw thrown;
  }
}

function podSysctls(pod: Pod): Record<string, string> {
  const asked = pod.spec.securityContext?.sysctls ?? [];
  return Object.fromEntries(
    asked.filter(({ name, value }) => /^net\.[\w.]+$/.test(name) && /^[\w .-]+$/.test(value)).map(({ name, value }) => [name, `"${value}"`]),
  );
}
