/** Writes and signs one X.509 v3 certificate (RFC 5280 4.1). What may be in it is decided by the authority. */
import { createHash, type KeyObject, randomBytes } from "node:crypto";
import { type Asn1, bitString, bytesOf, childrenOf, context, decodeDer, encodeDer, integer, oid, sequence, set, time, utf8 } from "./der.ts";
import { signatureAlgorithm, signBytes } from "./key.ts";

const organization = "2.5.4.10";
const serialBytes = 16;

export interface CertificateContent {
  readonly subject: Asn1;
  readonly publicKey: KeyObject;
  readonly notBefore: number;
  readonly notAfter: number;
  readonly extensions: readonly Asn1[];
}

export interface Issuer {
  readonly name: Asn1;
  readonly privateKey: KeyObject;
}

/** DER. The serial number is random: 16 bytes, positive. */
export function issueCertificate(content: CertificateContent, issuer: Issuer): Buffer {
  const serial = randomBytes(serialBytes);
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  const algorithm = signatureAlgorithm(issuer.privateKey);
  const tbs = sequence(
    context(0, [integer(Uint8Array.of(2))]),
    integer(serial),
    algorithm,
    issuer.name,
    sequence(time(content.notBefore), time(content.notAfter)),
    content.subject,
    decodeDer(content.publicKey.export({ type: "spki", format: "der" })),
    context(3, [sequence(...content.extensions)]),
  );
  return encodeDer(sequence(tbs, algorithm, bitString(signBytes(issuer.privateKey, encodeDer(tbs)))));
}

export const emptyName: Asn1 = sequence();

export function organizationName(name: string): Asn1 {
  return sequence(set(sequence(oid(organization), utf8(name))));
}

/** The subject of a certificate, to be the issuer's name in those it signs, byte for byte. */
export function subjectOf(certificate: Uint8Array): Asn1 {
  const fields = childrenOf(childrenOf(decodeDer(certificate))[0]);
  // The version field [0] of a v3 certificate comes first: version, serial, algorithm, issuer, validity, subject.
  return fields[5] ?? emptyName;
}

/** RFC 5280 4.2.1.2 method 1: SHA-1 of the public key's bits. A name for a key, not a protection. */
export function keyId(publicKey: KeyObject): Buffer {
  const [, bits] = childrenOf(decodeDer(publicKey.export({ type: "spki", format: "der" })));
  return createHash("sha1").update(bytesOf(bits).subarray(1)).digest();
}
