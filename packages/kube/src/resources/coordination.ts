/** coordination.k8s.io/v1: who leads. */
import type { KubeObject, ResourceType } from "../collection.ts";

export interface Lease extends KubeObject {
  spec?: {
    holderIdentity?: string | null;
    leaseDurationSeconds?: number;
    acquireTime?: string;
    renewTime?: string;
    leaseTransitions?: number;
  };
}

export const leases: ResourceType<Lease> = { group: "coordination.k8s.io", version: "v1", plural: "leases", kind: "Lease", namespaced: true };
