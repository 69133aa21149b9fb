/** Keys, CSRs, certificates, the CA, rotation, and who a certificate proves. */
export { Authority, defaultCertificateTtlMs, maxCertificateTtlMs, rootTtlMs, type ServingCertificate, type SigningRequest } from "./authority.ts";
export type { AuthorityPem } from "./authority-material.ts";
export { type CaClient, type CertificateRequest, localCaClient } from "./ca-client.ts";
export {
  attachCertificate,
  type CertificateParts,
  detachCertificate,
  type ParsedCertificate,
  parseCertificate,
  parseCertificates,
  workloadCertificate,
} from "./certificate.ts";
export type { CertificateSource, CertificateState, ChainLink, FetchPriority, MeshTls, PeerChain, Proven, WorkloadCertificate } from "./certificate-source.ts";
export { type ControlPlane, type ControlPlaneOptions, type ControlPlaneRoots, type ControlPlaneToken, controlPlane } from "./control-plane.ts";
export { controlPlaneAddress, controlPlaneRoots, controlPlaneToken } from "./control-plane-settings.ts";
export { buildCsr, maxCsrBytes, type VerifiedCsr, verifyCsr } from "./csr.ts";
export { type GrpcCaClientOptions, grpcCaClient } from "./grpc-ca-client.ts";
export { generateKeyPair, type KeyPair } from "./key.ts";
export { maxRevocationBytes, parseRevocationLists, RevocationCheck, type RevocationList } from "./revocation.ts";
export { defaultSecretTtlMs, SecretManager, type SecretManagerOptions } from "./secret-manager.ts";
export { createMeshTls, defaultHandshakeTimeoutMs, type MeshTlsOptions, postQuantumGroup } from "./tls-context.ts";
export { verifyClient, verifyServer } from "./verify-peer.ts";
