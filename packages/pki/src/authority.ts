/**
 * The CA: signs workload and serving certificates from one signing key. Immutable; rotating or reloading makes the next one,
 * and whoever serves from it keeps the latest in a Watch. Used by the controller and, in-process, by tests and demos.
 */
import { createPublicKey, type KeyObject } from "node:crypto";
import type { SpiffeId } from "@fairway/model";
import { type Clock, MeshError } from "@fairway/runtime";
import { type AuthorityMaterial, type AuthorityPem, isSelfIssued, parseAuthorityMaterial, rootsOverlap, sameKey } from "./authority-material.ts";
import { subjectKeyIdOf } from "./certificate.ts";
import { verifyCsr } from "./csr.ts";
import { type Asn1, encodePem } from "./der.ts";
import { type AltNames, authorityKeyId, basicConstraints, keyUsage, serverAndClientAuth, subjectAltNames, subjectKeyId } from "./extensions.ts";
import { emptyName, type Issuer, issueCertificate, keyId, organizationName, subjectOf } from "./issue.ts";
import { generateKeyPair, requireAcceptedKey } from "./key.ts";

const dayMs = 86_400_000;
/** Controller contract 7.3. */
export const rootTtlMs: number = 3650 * dayMs;
export const defaultCertificateTtlMs: number = dayMs;
export const maxCertificateTtlMs: number = 90 * dayMs;
const clockSkewMs = 120_000;
/** Share of a root's life before its end in which it is replaced. */
const rotationShare = 0.2;

export interface SigningRequest {
  /** Only used for its key; the names in it are not believed, but must not contradict `identity`. */
  readonly csr?: string;
  /** Instead of a request, when the holder of the key is beyond doubt. */
  readonly publicKey?: KeyObject;
  /** Who the caller was proven to be. */
  readonly identity: SpiffeId;
  /** 0 or less: the default of a day. */
  readonly ttlMs: number;
}

export interface ServingCertificate {
  /** PKCS#8 PEM, fresh. */
  readonly key: string;
  /** Leaf and intermediates as one PEM text. */
  readonly cert: string;
  readonly notBefore: number;
  readonly notAfter: number;
}

export class Authority {
  readonly #clock: Clock;
  readonly #material: AuthorityMaterial;
  readonly #pem: Required<AuthorityPem>;
  /** Read from the signing certificate once: every leaf repeats them. */
  readonly #issuer: Issuer;
  readonly #signerKeyId: Asn1;

  private constructor(pem: AuthorityPem, clock: Clock) {
    this.#clock = clock;
    this.#material = parseAuthorityMaterial(pem, clock.now());
    const { signer, roots, privateKey } = this.#material;
    this.#issuer = { name: subjectOf(signer.x509.raw), privateKey };
    this.#signerKeyId = authorityKeyId(subjectKeyIdOf(signer.x509.raw) ?? keyId(signer.x509.publicKey));
    this.#pem = { caCert: signer.pem, caKey: pem.caKey, certChain: pem.certChain ?? "", rootCert: roots.map((root) => root.pem).join("") };
  }

  /** A new self-signed CA with a fresh P-256 key, organisation = trust domain. */
  static createSelfSigned(options: { readonly trustDomain: string; readonly clock: Clock; readonly ttlMs?: number }): Authority {
    const { privateKey } = generateKeyPair();
    return Authority.#selfSigned(organizationName(options.trustDomain), privateKey, options.clock, options.ttlMs ?? rootTtlMs);
  }

  /** A plugged-in CA, or one that was stored. Throws MeshError PKI_CA_MATERIAL. */
  static load(pem: AuthorityPem, clock: Clock): Authority {
    return new Authority(pem, clock);
  }

  static #selfSigned(name: Asn1, privateKey: KeyObject, clock: Clock, ttlMs: number): Authority {
    const publicKey = createPublicKey(privateKey);
    const now = clock.now();
    const id = keyId(publicKey);
    const extensions = [basicConstraints({ isCa: true }), keyUsage({ isCa: true }), subjectKeyId(id), authorityKeyId(id)];
    const content = { subject: name, publicKey, notBefore: now - clockSkewMs, notAfter: now + ttlMs, extensions };
    const caCert = encodePem("CERTIFICATE", issueCertificate(content, { name, privateKey }));
    return new Authority({ caCert, caKey: privateKey.export({ type: "pkcs8", format: "pem" }).toString() }, clock);
  }

  /** Root bundle for clients, one PEM text. */
  get rootBundle(): string {
    return this.#pem.rootCert;
  }

  /** When the signing chain ends. */
  get notAfter(): number {
    return this.#material.notAfter;
  }

  /** All files, the private key included: for the Secret that keeps the CA, and nothing else. */
  exportPem(): Required<AuthorityPem> {
    return this.#pem;
  }

  /** A self-signed root in the last fifth of its life. A plugged-in CA is its owner's to replace. */
  get needsRotation(): boolean {
    const { notBefore, notAfter } = this.#material.signer;
    return isSelfIssued(this.#material.signer) && this.#clock.now() >= notAfter - (notAfter - notBefore) * rotationShare;
  }

  /** The next root with the same key and name: certificates signed by either verify with both. Throws MeshError PKI_CA_MATERIAL for a plugged-in CA. */
  rotated(ttlMs: number = rootTtlMs): Authority {
    const { signer, privateKey } = this.#material;
    if (!isSelfIssued(signer)) throw new MeshError("PKI_CA_MATERIAL", "a plugged-in CA is rotated by replacing its files, not by us");
    return Authority.#selfSigned(subjectOf(signer.x509.raw), privateKey, this.#clock, ttlMs);
  }

  /** New files for a running mesh. Throws MeshError PKI_CA_MATERIAL when they are broken, PKI_CA_ROOT_CHANGED when running peers would not trust them. */
  reloaded(pem: AuthorityPem): Authority {
    const next = new Authority(pem, this.#clock);
    const reissued = this.#material.roots.some((root) => next.#material.roots.some((other) => sameKey(root, other)));
    if (!reissued && !rootsOverlap(this.#material, next.#material)) {
      throw new MeshError(
        "PKI_CA_ROOT_CHANGED",
        "the new root-cert.pem shares nothing with the old one; first add the new root beside the old, and remove the old when all certificates were renewed",
      );
    }
    return next;
  }

  /**
   * `[leaf, intermediates…, root bundle]`, PEM (controller contract 7.1). The lifetime is cut to that of the signing chain.
   * Throws MeshError PKI_CSR_*, PKI_KEY_TYPE, PKI_TTL_TOO_LONG or PKI_CA_EXPIRED.
   */
  sign({ csr, publicKey, identity, ttlMs }: SigningRequest): string[] {
    const key = csr === undefined ? publicKey : verifyCsr(csr, { identity }).publicKey;
    if (key === undefined) throw new MeshError("PKI_CSR_MALFORMED", "neither a request nor a public key was given");
    requireAcceptedKey(key);
    const { pem } = this.#leaf(key, { uris: [identity] }, ttlMs);
    return [pem, ...this.#material.intermediates.map((certificate) => certificate.pem), this.#pem.rootCert];
  }

  /** A key and certificate for a TLS server of ours (the controller, an API server). */
  signServer({
    dnsNames,
    ips = [],
    ttlMs = 0,
  }: {
    readonly dnsNames: readonly string[];
    readonly ips?: readonly string[];
    readonly ttlMs?: number;
  }): ServingCertificate {
    const key = generateKeyPair();
    const { pem, notBefore, notAfter } = this.#leaf(key.publicKey, { dnsNames, ips }, ttlMs);
    const cert = [pem, ...this.#material.intermediates.map((certificate) => certificate.pem)].join("");
    return { key: key.privateKey.export({ type: "pkcs8", format: "pem" }).toString(), cert, notBefore, notAfter };
  }

  #leaf(publicKey: KeyObject, names: AltNames, requestedTtlMs: number): { pem: string; notBefore: number; notAfter: number } {
    if (requestedTtlMs > maxCertificateTtlMs) {
      throw new MeshError(
        "PKI_TTL_TOO_LONG",
        `a lifetime of ${Math.round(requestedTtlMs / dayMs)} days was asked for; at most ${maxCertificateTtlMs / dayMs} are given`,
      );
    }
    const now = this.#clock.now();
    const { notAfter: chainEnd } = this.#material;
    if (chainEnd <= now) throw new MeshError("PKI_CA_EXPIRED", "the CA's certificate chain has expired; renew ca-cert.pem");
    const notBefore = now - clockSkewMs;
    const notAfter = Math.min(now + (requestedTtlMs > 0 ? requestedTtlMs : defaultCertificateTtlMs), chainEnd);
    const extensions = [keyUsage({ isCa: false }), serverAndClientAuth(), basicConstraints({ isCa: false }), this.#signerKeyId, subjectAltNames(names)];
    const content = { subject: emptyName, publicKey, notBefore, notAfter, extensions };
    return { pem: encodePem("CERTIFICATE", issueCertificate(content, this.#issuer)), notBefore, notAfter };
  }
}
