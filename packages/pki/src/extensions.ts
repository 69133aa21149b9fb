/** The X.509 extensions we write and read (RFC 5280 4.2), shared by CSRs and certificates. */
import { ipToBytes, parseIp } from "@fairway/model";
import { MeshError } from "@fairway/runtime";
import {
  type Asn1,
  bitString,
  boolean,
  bytesOf,
  childrenOf,
  context,
  decodeDer,
  encodeDer,
  isBoolean,
  isContext,
  isSequence,
  octetString,
  oid,
  oidOf,
  sequence,
} from "./der.ts";

const subjectAltName = "2.5.29.17";
const uriTag = 6;
const dnsTag = 2;
const ipTag = 7;

export interface AltNames {
  readonly uris?: readonly string[];
  readonly dnsNames?: readonly string[];
  readonly ips?: readonly string[];
}

/** Critical, because our subjects are empty (RFC 5280 4.2.1.6). */
export function subjectAltNames({ uris = [], dnsNames = [], ips = [] }: AltNames): Asn1 {
  const names = [
    ...uris.map((uri) => context(uriTag, Buffer.from(uri, "latin1"))),
    ...dnsNames.map((name) => context(dnsTag, Buffer.from(name, "latin1"))),
    ...ips.map((ip) => context(ipTag, ipToBytes(parseIp(ip)))),
  ];
  return extension(subjectAltName, true, sequence(...names));
}

export function basicConstraints({ isCa }: { isCa: boolean }): Asn1 {
  return extension("2.5.29.19", true, isCa ? sequence(boolean(true)) : sequence());
}

/** A leaf signs and encrypts keys (controller contract 7.3); a CA signs certificates and revocation lists. */
export function keyUsage({ isCa }: { isCa: boolean }): Asn1 {
  return extension("2.5.29.15", true, isCa ? bitString(Uint8Array.of(0x06), 1) : bitString(Uint8Array.of(0xa0), 5));
}

export function serverAndClientAuth(): Asn1 {
  return extension("2.5.29.37", false, sequence(oid("1.3.6.1.5.5.7.3.1"), oid("1.3.6.1.5.5.7.3.2")));
}

export function subjectKeyId(id: Uint8Array): Asn1 {
  return extension("2.5.29.14", false, octetString(id));
}

export function authorityKeyId(id: Uint8Array): Asn1 {
  return extension("2.5.29.35", false, sequence(context(0, id)));
}

/** The content of an extension in an `Extensions` list. Throws MeshError PKI_BAD_CERTIFICATE when it stands there twice (RFC 5280 4.2). */
export function findExtension(extensions: Asn1 | undefined, dotted: string): Buffer | undefined {
  const found = childrenOf(extensions).filter((entry) => oidOf(childrenOf(entry)[0]) === dotted);
  if (found.length > 1) throw new MeshError("PKI_BAD_CERTIFICATE", `the extension ${dotted} is present more than once`);
  if (found[0] === undefined) return undefined;
  const [, second, third] = childrenOf(found[0]);
  return bytesOf(isBoolean(second) ? third : second);
}

/**
 * The URI names of a subjectAltName, in order, read from the DER elements themselves: never from a joined string,
 * in which one name can pretend to be two. A URI that is not printable ASCII (a NUL, a space, a byte above 0x7e)
 * is left out, because no such name can be a SPIFFE identity.
 */
export function uriNames(extensions: Asn1 | undefined): string[] {
  const content = findExtension(extensions, subjectAltName);
  if (content === undefined) return [];
  const names = decodeDer(content);
  if (!isSequence(names)) throw new MeshError("PKI_BAD_CERTIFICATE", "the subjectAltName is not a list of names");
  return childrenOf(names)
    .filter((name) => isContext(name, uriTag) && !name.constructed)
    .map((name) => bytesOf(name).toString("latin1"))
    .filter((uri) => /^[\x21-\x7e]+$/.test(uri));
}

function extension(dotted: string, critical: boolean, content: Asn1): Asn1 {
  const value = octetString(encodeDer(content));
  return critical ? sequence(oid(dotted), boolean(true), value) : sequence(oid(dotted), value);
}
