/** A pod made from a workload's template. Pure. */
import type { KubeObject } from "@fairway/kube";
import { ownerReference, type Pod, type PodTemplate } from "../resources.ts";

export interface PodWish {
  readonly template: PodTemplate;
  readonly owner: KubeObject;
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly nodeName?: string;
}

/** The pod, owned by its controller. */
export function podFromTemplate({ template, owner, apiVersion, kind, name, labels = {}, nodeName }: PodWish): Pod {
  const annotations = template.metadata?.annotations;
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name,
      // Whoever names a pod's workload looks for it: only generated pods have one.
      generateName: `${owner.metadata.name}-`,
      ...(owner.metadata.namespace === undefined ? {} : { namespace: owner.metadata.namespace }),
      labels: { ...template.metadata?.labels, ...labels },
      ...(annotations === undefined ? {} : { annotations: { ...annotations } }),
      ownerReferences: [ownerReference(apiVersion, kind, owner)],
    },
    spec: { ...structuredClone(template.spec), ...(nodeName === undefined ? {} : { nodeName }) },
  };
}
