/** Workload controllers' objects (apps/v1), as far as they are read here. */
import type { KubeObject, ObjectMeta, ResourceType } from "../collection.ts";
import type { Condition, PodTemplate } from "./core.ts";

export interface LabelSelector {
  matchLabels?: Record<string, string>;
  matchExpressions?: { key: string; operator: string; values?: string[] }[];
}

export interface Deployment extends KubeObject {
  spec?: { replicas?: number; selector?: LabelSelector; template?: PodTemplate; strategy?: { type?: string; rollingUpdate?: Record<string, unknown> } };
  status?: {
    observedGeneration?: number;
    replicas?: number;
    readyReplicas?: number;
    availableReplicas?: number;
    updatedReplicas?: number;
    unavailableReplicas?: number;
    conditions?: Condition[];
  };
}

export interface DaemonSet extends KubeObject {
  spec?: { selector?: LabelSelector; template?: PodTemplate; updateStrategy?: { type?: string; rollingUpdate?: Record<string, unknown> } };
  status?: {
    observedGeneration?: number;
    desiredNumberScheduled?: number;
    currentNumberScheduled?: number;
    numberReady?: number;
    numberAvailable?: number;
    updatedNumberScheduled?: number;
    numberMisscheduled?: number;
    numberUnavailable?: number;
  };
}

export interface ReplicaSet extends KubeObject {
  metadata: ObjectMeta;
  spec?: { replicas?: number; selector?: LabelSelector; template?: PodTemplate };
  status?: { observedGeneration?: number; replicas?: number; readyReplicas?: number; availableReplicas?: number };
}

const apps = <T extends KubeObject>(plural: string, kind: string): ResourceType<T> => ({ group: "apps", version: "v1", plural, kind, namespaced: true });

export const deployments: ResourceType<Deployment> = apps("deployments", "Deployment");
export const daemonSets: ResourceType<DaemonSet> = apps("daemonsets", "DaemonSet");
export const replicaSets: ResourceType<ReplicaSet> = apps("replicasets", "ReplicaSet");
