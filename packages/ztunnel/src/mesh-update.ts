/**
 * What the thread that holds the mesh tells one that holds a part of it: resources, each sent once however many answers it is in, and answers
 * that name them. One update is one step: who reads it never sees a half of it.
 */
import type { AuthorizationPolicy, PolicyKey, Service, ServiceKey, Workload, WorkloadUid } from "@fairway/model";

export interface MeshAnswer {
  readonly key: string;
  readonly workloads: readonly WorkloadUid[];
  readonly services: readonly ServiceKey[];
  readonly policies: readonly PolicyKey[];
  /** Policies that a workload names and nobody knows. */
  readonly missing: readonly PolicyKey[];
}

export interface MeshUpdate {
  readonly synced: boolean;
  /** Set for a change of the mesh, not for the answer to a question. */
  readonly policiesChanged: boolean;
  readonly workloadsChanged: boolean;
  /** New, or in place of those of the same name. */
  readonly workloads: readonly Workload[];
  readonly services: readonly Service[];
  readonly policies: readonly AuthorizationPolicy[];
  readonly answers: readonly MeshAnswer[];
  /** Questions that could not be answered, with the reason. */
  readonly failures: readonly { readonly key: string; readonly message: string }[];
  /** No longer part of any answer. */
  readonly droppedWorkloads: readonly WorkloadUid[];
  readonly droppedServices: readonly ServiceKey[];
  readonly droppedPolicies: readonly PolicyKey[];
  /** Questions that are no longer followed, because they were to be forgotten. */
  readonly forgotten: readonly string[];
}
