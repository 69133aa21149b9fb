/** The PEM files of a CA (controller contract 7.3 and 7.4), checked as a whole before anything is signed with them. */
import { createPublicKey, type KeyObject } from "node:crypto";
import { MeshError } from "@fairway/runtime";
import { type ParsedCertificate, parseCertificates } from "./certificate.ts";
import { parsePrivateKey, requireAcceptedKey } from "./key.ts";

/** As the Secrets name them: `ca-cert.pem`, `ca-key.pem`, `cert-chain.pem`, `root-cert.pem`. */
export interface AuthorityPem {
  readonly caCert: string;
  readonly caKey: string;
  /** From the signing certificate towards the root; may be empty, may repeat the signing certificate, may end with the root. */
  readonly certChain?: string;
  /** One or more roots; the signing certificate itself when left out. */
  readonly rootCert?: string;
}

export interface AuthorityMaterial {
  readonly signer: ParsedCertificate;
  readonly privateKey: KeyObject;
  /** From the signer towards the root, roots left out; empty when the signer is a root. */
  readonly intermediates: readonly ParsedCertificate[];
  readonly roots: readonly ParsedCertificate[];
  /** When the first certificate of the chain ends; nothing we sign may outlive it. */
  readonly notAfter: number;
}

/** Throws MeshError PKI_CA_MATERIAL naming the file and what is wrong with it. */
export function parseAuthorityMaterial(pem: AuthorityPem, now: number): AuthorityMaterial {
  const [signer] = read("ca-cert.pem", pem.caCert);
  if (signer === undefined) throw material("ca-cert.pem holds no certificate");
  if (!signer.x509.ca) throw material("ca-cert.pem is not the certificate of a CA (basicConstraints CA=true is missing)");
  if (signer.notAfter <= now) throw material("ca-cert.pem has expired");
  const privateKey = readKey(pem.caKey);
  if (!signer.x509.checkPrivateKey(privateKey)) throw material("ca-key.pem is not the key of ca-cert.pem");

  const given = pem.rootCert === undefined || pem.rootCert.trim() === "" ? [] : read("root-cert.pem", pem.rootCert);
  const roots = given.length > 0 ? given : isSelfIssued(signer) ? [signer] : [];
  if (roots.length === 0) throw material("root-cert.pem holds no certificate, and ca-cert.pem is not a root itself");

  const rest = read("cert-chain.pem", pem.certChain ?? "").filter((certificate) => !isSelfIssued(certificate) && !same(certificate, signer));
  const intermediates = isSelfIssued(signer) ? [] : [signer, ...rest];
  const last = chainEnd(intermediates) ?? signer;
  const anchor = roots.find((root) => same(root, last) || isIssuedBy(last, root));
  if (anchor === undefined) throw material("the chain from ca-cert.pem over cert-chain.pem does not end at any certificate of root-cert.pem");
  const notAfter = Math.min(signer.notAfter, anchor.notAfter, ...intermediates.map((certificate) => certificate.notAfter));
  return { signer, privateKey, intermediates, roots, notAfter };
}

/**
 * Whether `next` may replace `current` in a running mesh (controller contract 7.4): peers that trust the old roots must
 * accept what is signed now, and the reverse. True when one set of roots contains the other.
 */
export function rootsOverlap(current: AuthorityMaterial, next: AuthorityMaterial): boolean {
  const contains = (a: AuthorityMaterial, b: AuthorityMaterial): boolean => b.roots.every((root) => a.roots.some((other) => same(other, root)));
  return contains(current, next) || contains(next, current);
}

/** A re-issued root with the same key and name still verifies everything the old one did. */
export function sameKey(a: ParsedCertificate, b: ParsedCertificate): boolean {
  return a.x509.publicKey.equals(b.x509.publicKey) && a.x509.subject === b.x509.subject;
}

export function isSelfIssued(certificate: ParsedCertificate): boolean {
  return isIssuedBy(certificate, certificate);
}

function isIssuedBy(certificate: ParsedCertificate, issuer: ParsedCertificate): boolean {
  return certificate.x509.checkIssued(issuer.x509) && certificate.x509.verify(issuer.x509.publicKey);
}

/** Walks the chain; every certificate must be signed by the next. */
function chainEnd(chain: readonly ParsedCertificate[]): ParsedCertificate | undefined {
  for (const [index, certificate] of chain.entries()) {
    const next = chain[index + 1];
    if (next !== undefined && !isIssuedBy(certificate, next)) {
      throw material(`cert-chain.pem is not in order: its certificate ${index + 1} is not signed by the one after it`);
    }
  }
  return chain.at(-1);
}

function same(a: ParsedCertificate, b: ParsedCertificate): boolean {
  return a.x509.raw.equals(b.x509.raw);
}

function read(file: string, pem: string): ParsedCertificate[] {
  try {
    return parseCertificates(pem);
  } catch (cause) {
    throw material(`${file} cannot be read`, cause);
  }
}

function readKey(pem: string): KeyObject {
  try {
    const key = parsePrivateKey(pem);
    requireAcceptedKey(createPublicKey(key));
    return key;
  } catch (cause) {
    throw material("ca-key.pem cannot be used", cause);
  }
}

function material(what: string, cause?: unknown): MeshError {
  return new MeshError("PKI_CA_MATERIAL", `the CA's files cannot be used: ${what}`, { cause });
}
