/** Certificates as we read them: names from the DER, lifetimes, and what a CA's answer must look like to be used. */
import { type KeyObject, X509Certificate } from "node:crypto";
import { parseSpiffeId, type SpiffeId, tryParseSpiffeId } from "@fairway/model";
import { MeshError } from "@fairway/runtime";
import type { WorkloadCertificate } from "./certificate-source.ts";
import { bytesOf, childrenOf, decodeDer, decodePem, encodePem, isContext } from "./der.ts";
import { findExtension, uriNames } from "./extensions.ts";

const extensionsTag = 3;
const subjectKeyIdentifier = "2.5.29.14";

export interface ParsedCertificate {
  readonly x509: X509Certificate;
  readonly pem: string;
  /** Every URI name, in order. */
  readonly uris: readonly string[];
  /** Those of `uris` that are SPIFFE identities; the others say nothing. */
  readonly identities: readonly SpiffeId[];
  /** Lower-case hex. */
  readonly serialNumber: string;
  readonly notBefore: number;
  readonly notAfter: number;
}

/** Throws MeshError PKI_BAD_CERTIFICATE. */
export function parseCertificate(der: Uint8Array): ParsedCertificate {
  try {
    const x509 = new X509Certificate(der);
    const [tbs] = childrenOf(decodeDer(der));
    const extensions = childrenOf(tbs).find((field) => isContext(field, extensionsTag));
    const uris = uriNames(childrenOf(extensions)[0]);
    return {
      x509,
      pem: encodePem("CERTIFICATE", der),
      uris,
      identities: uris.filter((uri) => tryParseSpiffeId(uri) !== undefined).map(parseSpiffeId),
      serialNumber: x509.serialNumber.toLowerCase(),
      notBefore: x509.validFromDate.getTime(),
      notAfter: x509.validToDate.getTime(),
    };
  } catch (cause) {
    throw new MeshError("PKI_BAD_CERTIFICATE", "the bytes are not an X.509 certificate we can read", { cause });
  }
}

/** A bundle of roots or a chain is refused beyond this; real ones hold a handful. */
export const maxBundleCertificates = 256;

/** Every certificate of a PEM text, in order. Throws MeshError PKI_BAD_CERTIFICATE or PKI_BAD_PEM. */
export function parseCertificates(pem: string): ParsedCertificate[] {
  const blocks = decodePem(pem, ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"]);
  if (blocks.length > maxBundleCertificates) {
    throw new MeshError("PKI_BAD_CERTIFICATE", `the bundle holds ${blocks.length} certificates; at most ${maxBundleCertificates} are accepted`);
  }
  return blocks.map(parseCertificate);
}

/** The subjectKeyIdentifier of a certificate, which those it signs must repeat; undefined when it has none. */
export function subjectKeyIdOf(der: Uint8Array): Buffer | undefined {
  const [tbs] = childrenOf(decodeDer(der));
  const extensions = childrenOf(tbs).find((field) => isContext(field, extensionsTag));
  const content = findExtension(childrenOf(extensions)[0], subjectKeyIdentifier);
  return content === undefined ? undefined : bytesOf(decodeDer(content));
}

/** Keys live here and nowhere in the objects themselves, so no log, dump or JSON can reach them. */
const privateKeys = new WeakMap<WorkloadCertificate, KeyObject>();

/** A certificate with its key, as plain parts that `postMessage` can carry to another thread of this process. */
export interface CertificateParts {
  readonly certificate: WorkloadCertificate;
  readonly privateKey: KeyObject;
}

/** The only way out for a private key. For handing a certificate to a worker thread; never write the result anywhere. */
export function detachCertificate(certificate: WorkloadCertificate): CertificateParts {
  return { certificate, privateKey: privateKeyOf(certificate) };
}

/** The receiving side of `detachCertificate`. */
export function attachCertificate({ certificate, privateKey }: CertificateParts): WorkloadCertificate {
  privateKeys.set(certificate, privateKey);
  return certificate;
}

/** Throws MeshError PKI_NO_KEY when the certificate was not made by this package in this thread. */
export function privateKeyOf(certificate: WorkloadCertificate): KeyObject {
  const key = privateKeys.get(certificate);
  if (key === undefined)
    throw new MeshError("PKI_NO_KEY", `no private key is held for the certificate of ${certificate.identity}; attach it in this thread first`);
  return key;
}

/**
 * What a CA answered, checked before use (ztunnel contract 4.5): at least a leaf and the roots, the leaf's first URI is the
 * identity we asked for, its key is ours, and it is valid at `now`.
 * Throws MeshError PKI_CA_BAD_ANSWER naming what is wrong.
 */
export function workloadCertificate(
  answer: readonly string[],
  expected: { readonly identity: SpiffeId; readonly privateKey: KeyObject; readonly now: number },
): WorkloadCertificate {
  const bad = (what: string, cause?: unknown): MeshError =>
    new MeshError("PKI_CA_BAD_ANSWER", `the CA's answer for ${expected.identity} cannot be used: ${what}`, { cause });
  if (answer.length < 2) throw bad(`it has ${answer.length} elements; a leaf and the roots are needed`);
  let parsed: ParsedCertificate[][];
  try {
    parsed = answer.map(parseCertificates);
  } catch (cause) {
    throw bad("it is not PEM certificates", cause);
  }
  const roots = parsed.pop() ?? [];
  const [leaf, ...intermediates] = parsed.flat();
  if (leaf === undefined) throw bad("the leaf is empty");
  if (roots.length === 0) throw bad("the roots are empty");
  if (leaf.uris[0] !== expected.identity) throw bad(`the leaf is for ${JSON.stringify(leaf.uris[0] ?? "nobody")}`);
  if (!leaf.x509.checkPrivateKey(expected.privateKey)) throw bad("the leaf is for another key");
  if (leaf.notAfter <= expected.now) throw bad("the leaf has expired; compare the clocks of the CA and this node");
  return attachCertificate({
    certificate: {
      identity: expected.identity,
      chain: [leaf, ...intermediates].map(({ pem }) => pem),
      roots: roots.map(({ pem }) => pem),
      serialNumber: leaf.serialNumber,
      notBefore: leaf.notBefore,
      notAfter: leaf.notAfter,
    },
    privateKey: expected.privateKey,
  });
}
