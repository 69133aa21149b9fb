/**
 * Certificate revocation lists (RFC 5280 5, ztunnel contract 1.3). A list counts for the certificates of its issuer when the issuer's key signed
 * it. What no list speaks of is allowed; a list that is past its `nextUpdate` still revokes what it names.
 */
import { MeshError } from "@fairway/runtime";
import type { ChainLink, PeerChain } from "./certificate-source.ts";
import { type Asn1, bytesOf, childrenOf, decodeDer, decodePem, encodeDer, isBitString, isBoolean, isContext, isInteger, isSequence, oidOf } from "./der.ts";
import { isKnownSignatureAlgorithm, verifyBytes } from "./key.ts";
import { serialText } from "./peer-chain.ts";

/** One list, as plain data that can be handed to other threads. Its signature is checked against the issuer of a chain, at use. */
export interface RevocationList {
  /** As in a ChainLink. */
  readonly issuerName: string;
  readonly serialNumbers: ReadonlySet<string>;
  readonly algorithm: string;
  readonly signedBytes: Uint8Array;
  readonly signature: Uint8Array;
}

/** Kubernetes keeps no file above 1 MB; this is a list of some hundred thousand certificates. */
export const maxRevocationBytes: number = 16 * 1_048_576;

const extensionsTag = 0;
const issuingDistributionPoint = "2.5.29.28";
const indirectTag = 4;

/**
 * The lists of a file: PEM with any number of them, or one in DER. A file without any holds none.
 * Throws MeshError PKI_BAD_CRL when something in it is no list, or one of a kind that would be misread (delta and indirect lists).
 */
export function parseRevocationLists(file: Uint8Array): RevocationList[] {
  if (file.byteLength > maxRevocationBytes)
    throw new MeshError("PKI_BAD_CRL", `the file has ${file.byteLength} bytes; at most ${maxRevocationBytes} are accepted`);
  const text = Buffer.from(file.buffer, file.byteOffset, file.byteLength).toString("latin1");
  if (text.trim() === "") return [];
  try {
    return text.includes("-----BEGIN") ? decodePem(text, ["X509 CRL"]).map(parse) : [parse(file)];
  } catch (cause) {
    if (cause instanceof MeshError && cause.code === "PKI_BAD_CRL") throw cause;
    throw new MeshError("PKI_BAD_CRL", "the file is neither PEM with revocation lists nor one list in DER", { cause });
  }
}

function parse(der: Uint8Array): RevocationList {
  const list = decodeDer(der);
  const [signed, algorithm, signature] = childrenOf(list);
  const fields = [...childrenOf(signed)];
  // TBSCertList: version (absent in v1), algorithm, issuer, thisUpdate, nextUpdate (optional), entries (optional), extensions (optional).
  if (isInteger(fields[0])) fields.shift();
  const [innerAlgorithm, issuer, thisUpdate, ...rest] = fields;
  if (signed === undefined || issuer === undefined || thisUpdate === undefined) throw notAList();
  if (![list, signed, algorithm, innerAlgorithm, issuer].every(isSequence) || !isBitString(signature) || thisUpdate.constructed) throw notAList();
  if (rest[0]?.constructed === false) rest.shift();
  const signedWith = oidOf(childrenOf(algorithm)[0]);
  // It would never count, and nobody would know.
  if (!isKnownSignatureAlgorithm(signedWith)) throw new MeshError("PKI_BAD_CRL", `a list is signed with ${signedWith}; use ECDSA or RSA with SHA-2`);
  refuseWhatWouldBeMisread(rest.find((field) => isContext(field, extensionsTag)));
  const entries = isSequence(rest[0]) ? childrenOf(rest[0]) : [];
  return {
    issuerName: encodeDer(issuer).toString("base64"),
    serialNumbers: new Set(entries.map(serialOf)),
    algorithm: signedWith,
    // The signature must hold over the encoding of exactly what was parsed, so nothing unsigned can be read.
    signedBytes: encodeDer(signed),
    signature: bytesOf(signature).subarray(1),
  };
}

function serialOf(entry: Asn1): string {
  const [serial] = childrenOf(entry);
  if (!isInteger(serial)) throw notAList();
  return serialText(bytesOf(serial));
}

/** RFC 5280 5.2: a list with a critical extension that is not understood says nothing. Of a scoped list what it names is revoked all the same. */
function refuseWhatWouldBeMisread(extensions: Asn1 | undefined): void {
  for (const extension of childrenOf(childrenOf(extensions)[0])) {
    const [name, critical, content] = childrenOf(extension);
    const dotted = oidOf(name);
    if (!isBoolean(critical) || bytesOf(critical)[0] === 0) continue;
    if (dotted !== issuingDistributionPoint)
      throw new MeshError(
        "PKI_BAD_CRL",
        `a list has the critical extension ${dotted === "" ? "of no name" : dotted}, which is not understood; is it a delta list?`,
      );
    if (childrenOf(decodeDer(bytesOf(content))).some((field) => isContext(field, indirectTag) && bytesOf(field)[0] !== 0))
      throw new MeshError("PKI_BAD_CRL", "a list speaks of the certificates of other issuers (indirect); use one list for each issuer");
  }
}

function notAList(): MeshError {
  return new MeshError("PKI_BAD_CRL", "a field of a list is missing or of another type");
}

/** Signatures remembered for each list; a chain's issuers are few. */
const maxRemembered = 64;

/** Asks lists about chains. */
export class RevocationCheck {
  readonly #byIssuer: ReadonlyMap<string, readonly RevocationList[]>;
  readonly #signatures = new Map<RevocationList, Map<string, boolean>>();

  constructor(lists: readonly RevocationList[]) {
    this.#byIssuer = Map.groupBy(lists, ({ issuerName }) => issuerName);
  }

  /** Is any certificate of the chain revoked by its issuer? */
  readonly isRevoked = (chain: PeerChain): boolean => chain.some((link) => this.#isRevoked(link));

  #isRevoked(link: ChainLink): boolean {
    const lists = this.#byIssuer.get(link.issuerName) ?? [];
    return lists.some((list) => list.serialNumbers.has(link.serialNumber) && this.#isSigned(list, link));
  }

  /** By the issuer's key. Where the issuer is not known here the file of the administrator is believed: a revocation must not get lost. */
  #isSigned(list: RevocationList, { issuer }: ChainLink): boolean {
    if (issuer === undefined) return true;
    const remembered = this.#signatures.get(list) ?? new Map<string, boolean>();
    this.#signatures.set(list, remembered);
    const known = remembered.get(issuer.fingerprint);
    if (known !== undefined) return known;
    const signed = verifyBytes(issuer.publicKey, list.algorithm, list.signedBytes, list.signature);
    if (remembered.size >= maxRemembered) remembered.clear();
    remembered.set(issuer.fingerprint, signed);
    return signed;
  }
}
