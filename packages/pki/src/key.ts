/** Key pairs and signatures, all by node:crypto. A private key is a KeyObject: it prints and serialises as nothing. */
import { createPrivateKey, generateKeyPairSync, type KeyObject, sign, verify } from "node:crypto";
import { MeshError } from "@fairway/runtime";
import { type Asn1, nullValue, oid, sequence } from "./der.ts";

export interface KeyPair {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

/** The one kind of key we make: ECDSA P-256 (ztunnel contract 4.5). */
export function generateKeyPair(): KeyPair {
  return generateKeyPairSync("ec", { namedCurve: "P-256" });
}

/** Throws MeshError PKI_BAD_KEY; the message never holds key material. */
export function parsePrivateKey(pem: string): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch {
    throw new MeshError("PKI_BAD_KEY", "the text is not an unencrypted PEM private key (PKCS#8, SEC1 or PKCS#1)");
  }
}

interface SignatureAlgorithm {
  readonly oid: string;
  readonly keyType: "ec" | "rsa";
  readonly digest: "sha256" | "sha384" | "sha512";
}

const algorithms: readonly SignatureAlgorithm[] = [
  { oid: "1.2.840.10045.4.3.2", keyType: "ec", digest: "sha256" },
  { oid: "1.2.840.10045.4.3.3", keyType: "ec", digest: "sha384" },
  { oid: "1.2.840.10045.4.3.4", keyType: "ec", digest: "sha512" },
  { oid: "1.2.840.113549.1.1.11", keyType: "rsa", digest: "sha256" },
  { oid: "1.2.840.113549.1.1.12", keyType: "rsa", digest: "sha384" },
  { oid: "1.2.840.113549.1.1.13", keyType: "rsa", digest: "sha512" },
];

/** The algorithm our own signatures use with `key`, as an AlgorithmIdentifier. Throws MeshError PKI_KEY_TYPE. */
export function signatureAlgorithm(key: KeyObject): Asn1 {
  const { oid: dotted, keyType } = algorithmFor(key);
  // RFC 3279 2.2.1: NULL parameters for RSA; RFC 5758 3.2: none for ECDSA.
  return keyType === "rsa" ? sequence(oid(dotted), nullValue()) : sequence(oid(dotted));
}

export function signBytes(key: KeyObject, bytes: Uint8Array): Buffer {
  return sign(algorithmFor(key).digest, bytes, key);
}

/** Can `verifyBytes` verify signatures of this algorithm? */
export function isKnownSignatureAlgorithm(algorithmOid: string): boolean {
  return algorithms.some((candidate) => candidate.oid === algorithmOid);
}

/** False for a wrong signature, an unknown algorithm, or one that is not of the key's type. Never throws. */
export function verifyBytes(key: KeyObject, algorithmOid: string, bytes: Uint8Array, signature: Uint8Array): boolean {
  const algorithm = algorithms.find((candidate) => candidate.oid === algorithmOid && candidate.keyType === key.asymmetricKeyType);
  if (algorithm === undefined) return false;
  try {
    return verify(algorithm.digest, bytes, key, signature);
  } catch {
    return false;
  }
}

const smallestRsaBits = 2048;
const largestRsaBits = 4096;
const acceptedCurves: readonly string[] = ["prime256v1", "secp384r1"];

/**
 * Throws MeshError PKI_KEY_TYPE unless `key` is ECDSA P-256 or P-384, or RSA of 2048 to 4096 bits.
 * Our own proxies send P-256; the others are what foreign ambient proxies may send.
 */
export function requireAcceptedKey(key: KeyObject): void {
  const { namedCurve = "", modulusLength = 0 } = key.asymmetricKeyDetails ?? {};
  if (key.asymmetricKeyType === "ec" && acceptedCurves.includes(namedCurve)) return;
  if (key.asymmetricKeyType === "rsa" && modulusLength >= smallestRsaBits && modulusLength <= largestRsaBits) return;
  const size = namedCurve === "" ? (modulusLength === 0 ? "" : ` ${modulusLength}`) : ` ${namedCurve}`;
  throw new MeshError("PKI_KEY_TYPE", `a ${key.asymmetricKeyType ?? "unknown"}${size} key is not accepted; use ECDSA P-256, P-384 or RSA 2048 to 4096`);
}

function algorithmFor(key: KeyObject): SignatureAlgorithm {
  const digest = key.asymmetricKeyDetails?.namedCurve === "secp384r1" ? "sha384" : "sha256";
  const found = algorithms.find((candidate) => candidate.keyType === key.asymmetricKeyType && candidate.digest === digest);
  if (found === undefined) throw new MeshError("PKI_KEY_TYPE", `cannot sign with a ${key.asymmetricKeyType ?? "unknown"} key; use ECDSA or RSA`);
  return found;
}
