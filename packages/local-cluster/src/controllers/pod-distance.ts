/** How much a pod wants to be apart from the pods of a node: required and preferred pod anti-affinity, within its own namespace. Pure. */
import type { NodeObject, Pod, PodAffinityTerm } from "../resources.ts";
import { satisfies } from "./context.ts";

/** Whether required anti-affinity, of the pod or of one that runs, keeps it off the node; `nodes` and `pods` are all there are. */
export function mayShare(pod: Pod, node: NodeObject, nodes: readonly NodeObject[], pods: readonly Pod[]): boolean {
  const own = pod.spec.affinity?.podAntiAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? [];
  if (own.some((term) => meets(term, pod, node, nodes, pods))) return false;
  // Kubernetes reads required anti-affinity both ways: who runs alone also keeps others away.
  return !pods.some((other) =>
    (other.spec.affinity?.podAntiAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? []).some(
      (term) => selects(term, other, pod) && sameTopology(term, node, nodeOf(other, nodes)),
    ),
  );
}

/** Sum of the weights of preferred anti-affinity that the node would go against. */
export function reluctance(pod: Pod, node: NodeObject, nodes: readonly NodeObject[], pods: readonly Pod[]): number {
  const preferred = pod.spec.affinity?.podAntiAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? [];
  return preferred.reduce(
    (sum, { weight = 1, podAffinityTerm }) => sum + (podAffinityTerm !== undefined && meets(podAffinityTerm, pod, node, nodes, pods) ? weight : 0),
    0,
  );
}

function meets(term: PodAffinityTerm, pod: Pod, node: NodeObject, nodes: readonly NodeObject[], pods: readonly Pod[]): boolean {
  return pods.some((other) => selects(term, pod, other) && sameTopology(term, node, nodeOf(other, nodes)));
}

function selects({ labelSelector }: PodAffinityTerm, owner: Pod, other: Pod): boolean {
  if (labelSelector === undefined || owner.metadata.namespace !== other.metadata.namespace) return false;
  const labels = other.metadata.labels ?? {};
  return (
    Object.entries(labelSelector.matchLabels ?? {}).every(([key, value]) => labels[key] === value) &&
    (labelSelector.matchExpressions ?? []).every((expression) => satisfies(expression, labels))
  );
}

function nodeOf(pod: Pod, nodes: readonly NodeObject[]): NodeObject | undefined {
  return nodes.find(({ metadata }) => metadata.name === pod.spec.nodeName);
}

function sameTopology({ topologyKey }: PodAffinityTerm, a: NodeObject, b: NodeObject | undefined): boolean {
  const value = a.metadata.labels?.[topologyKey];
  return value !== undefined && value === b?.metadata.labels?.[topologyKey];
}
