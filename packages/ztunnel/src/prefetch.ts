/**
 * Certificates before the first connection asks (ztunnel contract 4.5): every identity with a tunnelled workload on this node has one,
 * and loses it with its last workload.
 */
import { type SpiffeId, workloadIdentity } from "@fairway/model";
import type { CertificateSource } from "@fairway/pki";
import type { MeshView } from "@fairway/xds";

/** Follows the mesh until disposed. `pinned` identities are never dropped: they are the process's own. */
export function prefetchCertificates(options: { mesh: MeshView; certificates: CertificateSource; node: string; pinned?: readonly SpiffeId[] }): Disposable {
  const { mesh, certificates, node } = options;
  const pinned = new Set(options.pinned);
  let held = new Set<SpiffeId>();
  const follow = (): void => {
    const wanted = new Set<SpiffeId>();
    for (const workload of mesh.snapshot.workloadsOnNode(node)) {
      if (workload.tunnelProtocol === "hbone" || workload.nativeTunnel) wanted.add(workloadIdentity(workload));
    }
    for (const identity of wanted) if (!held.has(identity)) certificates.prefetch(identity);
    for (const identity of held) if (!wanted.has(identity) && !pinned.has(identity)) certificates.forget(identity);
    held = wanted;
  };
  follow();
  return mesh.changes.subscribe(({ workloadsChanged }) => {
    if (workloadsChanged) follow();
  });
}
