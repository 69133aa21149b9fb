/** What a failed connection is called: codes of ours, and the short words that metrics and dashboards know (ztunnel contract 9.1). */
import { errorCode, MeshError } from "@fairway/runtime";

/** `response_flags`; "-" is success. Closed: it is a metric label. */
export type ResponseFlag = "-" | "DENY" | "CONNECT" | "TLS_FAILURE" | "H2_HANDSHAKE_FAILURE" | "NETWORK_POLICY" | "IDENTITY_ERROR" | "CERT_REVOKED";

/** Why this program itself ends or refuses a connection. */
export type ZtunnelCode =
  | "ZTUNNEL_POLICY_DENIED"
  | "ZTUNNEL_POLICY_CHANGED"
  | "ZTUNNEL_NOT_SYNCED"
  | "ZTUNNEL_OWN_WORKLOAD_UNKNOWN"
  | "ZTUNNEL_ROUTE_REFUSED"
  | "ZTUNNEL_NO_FAR_IDENTITIES"
  | "ZTUNNEL_NAME_UNRESOLVED"
  | "ZTUNNEL_DNS_UPSTREAM"
  | "ZTUNNEL_HBONE_TIMEOUT"
  | "ZTUNNEL_IDENTITY"
  | "ZTUNNEL_HTTP2_HANDSHAKE"
  | "ZTUNNEL_PEER_REVOKED"
  | "ZTUNNEL_CRL"
  | "ZTUNNEL_HALF_CLOSED"
  | "ZTUNNEL_ZDS_DESCRIPTORS"
  | "ZTUNNEL_SOURCE_NOT_KEPT"
  | "ZTUNNEL_DRAIN_DEADLINE"
  | "ZTUNNEL_POD_STOPPED"
  | "ZTUNNEL_BAD_REQUEST"
  | "ZTUNNEL_CLIENT_GAVE_UP"
  | "ZTUNNEL_ZDS_PROTOCOL"
  | "ZTUNNEL_LOCAL_CA"
  | "ZTUNNEL_BAD_PROXY_CONFIG"
  | "ZTUNNEL_NOT_HELD"
  | "ZTUNNEL_MESH_UNANSWERED"
  | "ZTUNNEL_THREAD_DIED"
  | "ZTUNNEL_THREAD_FAILED"
  | "ZTUNNEL_UNSUPPORTED";

/** A MeshError with one of this package's codes. */
export function ztunnelError(code: ZtunnelCode, message: string, cause?: unknown): MeshError<ZtunnelCode> {
  return new MeshError(code, message, cause === undefined ? {} : { cause });
}

const flagByCode: ReadonlyMap<string, ResponseFlag> = new Map<string, ResponseFlag>([
  ["ZTUNNEL_POLICY_DENIED", "DENY"],
  ["ZTUNNEL_POLICY_CHANGED", "DENY"],
  ["ZTUNNEL_NOT_SYNCED", "DENY"],
  ["ZTUNNEL_MESH_UNANSWERED", "DENY"],
  ["ZTUNNEL_HBONE_TIMEOUT", "NETWORK_POLICY"],
  ["ZTUNNEL_IDENTITY", "IDENTITY_ERROR"],
  ["ZTUNNEL_HTTP2_HANDSHAKE", "H2_HANDSHAKE_FAILURE"],
  ["PKI_HANDSHAKE_FAILED", "TLS_FAILURE"],
  ["PKI_HANDSHAKE_TIMEOUT", "TLS_FAILURE"],
  ["PKI_PEER_IDENTITY_MISMATCH", "TLS_FAILURE"],
  ["PKI_PEER_REVOKED", "CERT_REVOKED"],
  ["ZTUNNEL_PEER_REVOKED", "CERT_REVOKED"],
  ["ZTUNNEL_NO_FAR_IDENTITIES", "TLS_FAILURE"],
]);

/** The flag of a connection that ended with `error`; success without one. */
export function flagOf(error: Error | undefined): ResponseFlag {
  if (error === undefined) return "-";
  return flagByCode.get(errorCode(error) ?? "") ?? "CONNECT";
}
