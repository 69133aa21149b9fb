/** DER by node-forge's asn1 and pem, as Buffers: the only file that knows the library's binary strings. */
import { MeshError } from "@fairway/runtime";
import forge from "node-forge";

declare module "node-forge" {
  namespace asn1 {
    /** The form with options, which the published types leave out. */
    function fromDer(bytes: forge.util.ByteStringBuffer, options: { strict: boolean; parseAllBytes: boolean; decodeBitStrings: boolean }): Asn1;
  }
}

const { asn1 } = forge;

export type Asn1 = forge.asn1.Asn1;
const { Class, Type } = asn1;

export function sequence(...children: readonly Asn1[]): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.SEQUENCE, true, [...children]);
}

export function set(...children: readonly Asn1[]): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.SET, true, [...children]);
}

export function oid(dotted: string): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.OID, false, asn1.oidToDer(dotted).getBytes());
}

export function integer(bytes: Uint8Array): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.INTEGER, false, binary(bytes));
}

export function boolean(value: boolean): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.BOOLEAN, false, value ? "\xff" : "\x00");
}

export function nullValue(): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.NULL, false, "");
}

export function utf8(text: string): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.UTF8, false, binary(Buffer.from(text, "utf8")));
}

export function octetString(bytes: Uint8Array): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.OCTETSTRING, false, binary(bytes));
}

/** `unusedBits` low bits of the last byte are padding. */
export function bitString(bytes: Uint8Array, unusedBits = 0): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.BITSTRING, false, String.fromCharCode(unusedBits) + binary(bytes));
}

/** UTCTime until 2049, GeneralizedTime after (RFC 5280 4.1.2.5). */
export function time(atMs: number): Asn1 {
  const date = new Date(atMs);
  return date.getUTCFullYear() < 2050
    ? asn1.create(Class.UNIVERSAL, Type.UTCTIME, false, asn1.dateToUtcTime(date))
    : asn1.create(Class.UNIVERSAL, Type.GENERALIZEDTIME, false, asn1.dateToGeneralizedTime(date));
}

/** A context-specific element: constructed when it has children, primitive when it has bytes. */
export function context(tag: number, value: readonly Asn1[] | Uint8Array): Asn1 {
  return value instanceof Uint8Array
    ? asn1.create(Class.CONTEXT_SPECIFIC, tag, false, binary(value))
    : asn1.create(Class.CONTEXT_SPECIFIC, tag, true, [...value]);
}

export function encodeDer(value: Asn1): Buffer {
  return Buffer.from(asn1.toDer(value).getBytes(), "latin1");
}

/** Throws MeshError PKI_BAD_DER for anything but one whole element. */
export function decodeDer(bytes: Uint8Array): Asn1 {
  try {
    return asn1.fromDer(forge.util.createBuffer(binary(bytes)), { strict: true, parseAllBytes: true, decodeBitStrings: false });
  } catch (cause) {
    throw new MeshError("PKI_BAD_DER", "the bytes are not one DER element", { cause });
  }
}

/** The children of a constructed element; none for a primitive one. */
export function childrenOf(element: Asn1 | undefined): readonly Asn1[] {
  return element !== undefined && Array.isArray(element.value) ? element.value : [];
}

/** The content of a primitive element; empty for a constructed one. */
export function bytesOf(element: Asn1 | undefined): Buffer {
  return element !== undefined && typeof element.value === "string" ? Buffer.from(element.value, "latin1") : Buffer.alloc(0);
}

export function isContext(element: Asn1 | undefined, tag: number): boolean {
  return element?.tagClass === Class.CONTEXT_SPECIFIC && Number(element.type) === tag;
}

export function isSequence(element: Asn1 | undefined): element is Asn1 {
  return element?.tagClass === Class.UNIVERSAL && element.type === Type.SEQUENCE && element.constructed;
}

/** With whole bytes, as every signature and key is. */
export function isBitString(element: Asn1 | undefined): boolean {
  return element?.tagClass === Class.UNIVERSAL && element.type === Type.BITSTRING && !element.constructed && bytesOf(element)[0] === 0;
}

export function isInteger(element: Asn1 | undefined): element is Asn1 {
  return element?.tagClass === Class.UNIVERSAL && element.type === Type.INTEGER && !element.constructed;
}

export function isBoolean(element: Asn1 | undefined): boolean {
  return element?.tagClass === Class.UNIVERSAL && element.type === Type.BOOLEAN;
}

/** The dotted form of an OBJECT IDENTIFIER, or "" when the element is something else. */
export function oidOf(element: Asn1 | undefined): string {
  if (element?.tagClass !== Class.UNIVERSAL || element.type !== Type.OID || typeof element.value !== "string" || element.value === "") return "";
  return asn1.derToOid(element.value);
}

/** Every PEM block of `text` whose label is one of `labels`, as DER. Text without any yields none; broken armour throws PKI_BAD_PEM. */
export function decodePem(text: string, labels: readonly string[]): Buffer[] {
  if (!text.includes("-----BEGIN")) return [];
  try {
    return forge.pem
      .decode(text)
      .filter(({ type }) => labels.includes(type))
      .map(({ body }) => Buffer.from(body, "latin1"));
  } catch (cause) {
    throw new MeshError("PKI_BAD_PEM", "the text is not PEM; check for a truncated or edited file", { cause });
  }
}

/** Unix line ends and a trailing newline, as every reader of PEM bundles accepts. */
export function encodePem(label: string, der: Uint8Array): string {
  return forge.pem.encode({ type: label, body: binary(der) }, { maxline: 64 }).replaceAll("\r\n", "\n");
}

function binary(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}
