/** The name of the thing a pod belongs to: its Deployment, CronJob, Rollout … (controller contract 2.5). */
import type { Pod } from "@fairway/kube";
import { label } from "./labels.ts";

const cronJobRun = /^(.+)-\d{8,10}$/;

export function workloadName({ metadata }: Pod): string {
  const { labels = {}, generateName = "", ownerReferences = [], name } = metadata;
  const explicit = labels[label.workloadName];
  if (explicit !== undefined && explicit !== "") return explicit;
  const owner = ownerReferences.find(({ controller }) => controller === true);
  if (generateName === "" || owner === undefined) return name;
  switch (owner.kind) {
    case "ReplicaSet":
      return withoutHash(owner.name, labels["pod-template-hash"]) ?? withoutHash(owner.name, labels["rollouts-pod-template-hash"]) ?? owner.name;
    case "ReplicationController":
      return labels["deploymentconfig"] ?? owner.name;
    case "Job":
      return cronJobRun.exec(owner.name)?.[1] ?? owner.name;
    default:
      return owner.name;
  }
}

export function canonicalName({ metadata: { labels = {} } }: Pod, fallback: string): string {
  return first(labels[label.canonicalName], labels["app.kubernetes.io/name"], labels["app"]) ?? fallback;
}

export function canonicalRevision({ metadata: { labels = {} } }: Pod): string {
  return first(labels[label.canonicalRevision], labels["app.kubernetes.io/version"], labels["version"]) ?? "latest";
}

function withoutHash(name: string, hash: string | undefined): string | undefined {
  return hash !== undefined && hash !== "" && name.endsWith(`-${hash}`) ? name.slice(0, -hash.length - 1) : undefined;
}

function first(...values: readonly (string | undefined)[]): string | undefined {
  return values.find((value) => value !== undefined && value !== "");
}
