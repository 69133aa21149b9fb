/** Whether a pod may run on a node: node selector, required node affinity, cordon. Taints are not honoured: these nodes have none. Pure. */
import type { NodeObject, NodeSelectorTerm, PodSpec } from "../resources.ts";
import { satisfies } from "./context.ts";

export function fits(node: NodeObject, spec: PodSpec): boolean {
  const labels = node.metadata.labels ?? {};
  const bySelector = Object.entries(spec.nodeSelector ?? {}).every(([key, value]) => labels[key] === value);
  const terms = spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms;
  return bySelector && (terms === undefined || terms.length === 0 || terms.some((term) => matchesTerm(term, node)));
}

function matchesTerm({ matchExpressions = [], matchFields = [] }: NodeSelectorTerm, node: NodeObject): boolean {
  if (matchExpressions.length + matchFields.length === 0) return false;
  return (
    matchExpressions.every((expression) => satisfies(expression, node.metadata.labels ?? {})) &&
    matchFields.every((field) => satisfies(field, { "metadata.name": node.metadata.name }))
  );
}
