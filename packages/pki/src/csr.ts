/** Certificate signing requests (RFC 2986): built by whoever wants a certificate, checked by whoever signs. */
import { createPublicKey, type KeyObject } from "node:crypto";
import type { SpiffeId } from "@fairway/model";
import { MeshError } from "@fairway/runtime";
import {
  type Asn1,
  bitString,
  bytesOf,
  childrenOf,
  context,
  decodeDer,
  decodePem,
  encodeDer,
  encodePem,
  integer,
  isBitString,
  isContext,
  isSequence,
  oid,
  oidOf,
  sequence,
  set,
} from "./der.ts";
import { subjectAltNames, uriNames } from "./extensions.ts";
import { type KeyPair, requireAcceptedKey, signatureAlgorithm, signBytes, verifyBytes } from "./key.ts";

const extensionRequest = "1.2.840.113549.1.9.14";
const attributesTag = 0;

/** A P-256 request is about 500 bytes, an RSA-4096 one about 2 kB. */
export const maxCsrBytes: number = 16 * 1024;

/** A request whose signature was verified: the sender holds the private key. */
export interface VerifiedCsr {
  readonly publicKey: KeyObject;
  /** What the sender asked to be called; a claim, never a proof. */
  readonly uris: readonly string[];
}

/** PEM: empty subject, one URI name (ztunnel contract 4.5). */
export function buildCsr(identity: SpiffeId, key: KeyPair): string {
  const names = sequence(subjectAltNames({ uris: [identity] }));
  const attributes = context(attributesTag, [sequence(oid(extensionRequest), set(names))]);
  const publicKey = decodeDer(key.publicKey.export({ type: "spki", format: "der" }));
  const info = sequence(integer(Uint8Array.of(0)), sequence(), publicKey, attributes);
  const signature = bitString(signBytes(key.privateKey, encodeDer(info)));
  return encodePem("CERTIFICATE REQUEST", encodeDer(sequence(info, signatureAlgorithm(key.privateKey), signature)));
}

/**
 * Parses a PEM request and verifies that its sender holds the key.
 * With `identity`, every URI the request names must be that identity (a request without names passes).
 * Throws MeshError PKI_CSR_TOO_LARGE, PKI_CSR_MALFORMED, PKI_KEY_TYPE, PKI_CSR_BAD_SIGNATURE or PKI_CSR_FOREIGN_IDENTITY.
 */
export function verifyCsr(pem: string, options: { readonly identity?: SpiffeId } = {}): VerifiedCsr {
  if (pem.length > maxCsrBytes) throw new MeshError("PKI_CSR_TOO_LARGE", `the request has ${pem.length} bytes; at most ${maxCsrBytes} are accepted`);
  const csr = parse(pem);
  requireAcceptedKey(csr.publicKey);
  if (!verifyBytes(csr.publicKey, csr.algorithm, csr.signedBytes, csr.signature)) {
    throw new MeshError("PKI_CSR_BAD_SIGNATURE", "the request's signature does not match its public key; was it altered on the way?");
  }
  const foreign = options.identity === undefined ? undefined : csr.uris.find((uri) => uri !== options.identity);
  if (foreign !== undefined) {
    throw new MeshError("PKI_CSR_FOREIGN_IDENTITY", `the request names ${JSON.stringify(foreign)}, but the caller may only ask for ${options.identity}`);
  }
  return { publicKey: csr.publicKey, uris: csr.uris };
}

interface ParsedCsr extends VerifiedCsr {
  readonly signedBytes: Buffer;
  readonly algorithm: string;
  readonly signature: Buffer;
}

function parse(pem: string): ParsedCsr {
  try {
    const [der, ...rest] = decodePem(pem, ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"]);
    if (der === undefined || rest.length > 0) throw new MeshError("PKI_BAD_PEM", "expected one CERTIFICATE REQUEST block");
    const request = decodeDer(der);
    const [info, algorithm, signature] = childrenOf(request);
    if (![request, info, algorithm].every(isSequence) || !isBitString(signature)) throw new MeshError("PKI_BAD_DER", "a field is of another type");
    const [, , publicKey, attributes] = childrenOf(info);
    if (info === undefined || publicKey === undefined) throw new MeshError("PKI_BAD_DER", "a field is missing");
    return {
      publicKey: createPublicKey({ key: encodeDer(publicKey), format: "der", type: "spki" }),
      uris: isContext(attributes, attributesTag) ? uriNames(requestedExtensions(attributes)) : [],
      // The signature must hold over the encoding of exactly what was parsed, so nothing unsigned can be read.
      signedBytes: encodeDer(info),
      algorithm: oidOf(childrenOf(algorithm)[0]),
      signature: bytesOf(signature).subarray(1),
    };
  } catch (cause) {
    throw new MeshError("PKI_CSR_MALFORMED", "the text is not a PEM certificate signing request", { cause });
  }
}

function requestedExtensions(attributes: Asn1 | undefined): Asn1 | undefined {
  const attribute = childrenOf(attributes).find((entry) => oidOf(childrenOf(entry)[0]) === extensionRequest);
  return childrenOf(childrenOf(attribute)[1])[0];
}
