/** What every conversion must know of the mesh it converts for. */
import type { NetworkId } from "@fairway/model";

export interface MeshSettings {
  /** Where the mesh is installed; policies there apply everywhere. */
  readonly rootNamespace: string;
  readonly clusterId: string;
  readonly trustDomain: string;
  /** `cluster.local` */
  readonly clusterDomain: string;
  /** Objects labelled `istio.io/rev` belong to the control plane of that name. */
  readonly revision: string;
  /** Network of this cluster when the root namespace carries no `topology.istio.io/network` label. */
  readonly network: NetworkId;
  /** Dry-run policies are sent; without it they are not, because a ztunnel that does not know the field would enforce them. */
  readonly dryRunPolicies: boolean;
}
