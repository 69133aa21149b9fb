/** Keys, CSRs, certificates, the CA, rotation, and who a certificate proves. */
export type { CertificateSource, CertificateState, FetchPriority, MeshTls, WorkloadCertificate } from "./certificate-source.ts";
