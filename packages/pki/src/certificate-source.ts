/** The seam through which proxies get their certificates and prove identities. */
import type { KeyObject } from "node:crypto";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import type { SpiffeId } from "@fairway/model";
import type { Watch } from "@fairway/runtime";

/** A certificate in use. The private key is reachable only through the TLS contexts and never serialises. */
export interface WorkloadCertificate {
  readonly identity: SpiffeId;
  /** Leaf first, then intermediates; PEM, one certificate each. */
  readonly chain: readonly string[];
  /** Roots that verify peers; PEM, one certificate each. */
  readonly roots: readonly string[];
  /** Lower-case hex, as in the certificate. */
  readonly serialNumber: string;
  /** Milliseconds since the epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
}

export type CertificateState =
  | { readonly kind: "initializing" }
  | { readonly kind: "available"; readonly certificate: WorkloadCertificate }
  | { readonly kind: "unavailable"; readonly error: Error /** Still valid, though renewal failed. */; readonly certificate: WorkloadCertificate | undefined };

/** `realtime` serves a waiting connection, `warmup` a pod that just appeared, `background` a rotation. */
export type FetchPriority = "realtime" | "warmup" | "background";

/** Certificates of local identities: fetched once, shared, rotated, forgotten when the last user leaves. */
export interface CertificateSource {
  /** The certificate of `identity`, fetched when missing; concurrent calls share one fetch. Throws MeshError PKI_*. */
  fetch(identity: SpiffeId, options: { signal: AbortSignal; priority?: FetchPriority }): Promise<WorkloadCertificate>;
  /** Starts fetching in the background; the state is observable through `states`. */
  prefetch(identity: SpiffeId): void;
  /** Drops the identity; its certificate is gone and rotation stops. */
  forget(identity: SpiffeId): void;
  readonly states: Watch<ReadonlyMap<SpiffeId, CertificateState>>;
}

/** One certificate of a chain. */
export interface ChainLink {
  /** The issuer's Name: its DER in base64, which is compared and never read. */
  readonly issuerName: string;
  /** Lower-case hex without leading zeros. */
  readonly serialNumber: string;
  /** Who signed it, where that is known here. */
  readonly issuer: { readonly fingerprint: string; readonly publicKey: KeyObject } | undefined;
}

/** Leaf first, towards the root. */
export type PeerChain = readonly ChainLink[];

/** A peer whose certificate was verified, and the socket to speak with it. */
export interface Proven {
  readonly socket: TLSSocket;
  readonly peer: SpiffeId;
  /** By what it was believed; kept only where revocation is asked about (`isRevoked`). */
  readonly chain: PeerChain | undefined;
}

/** TLS over sockets that are already connected; contexts are built once per certificate. */
export interface MeshTls {
  /**
   * Client handshake, no SNI, ALPN `h2`, TLS 1.3. The peer must prove one of `expected` (never empty).
   * Over a socket, or over a stream inside another tunnel.
   * Throws MeshError PKI_HANDSHAKE_FAILED, PKI_PEER_IDENTITY_MISMATCH, or the signal's reason; the socket is destroyed then.
   */
  connect(socket: Duplex, certificate: WorkloadCertificate, expected: readonly SpiffeId[], options: { signal: AbortSignal }): Promise<Proven>;
  /**
   * Server handshake: a client certificate is required and must be of our trust domain.
   * `certificate` may be newer at each call; contexts are cached by certificate.
   */
  accept(socket: Socket, certificate: WorkloadCertificate, options: { signal: AbortSignal }): Promise<Proven>;
}
