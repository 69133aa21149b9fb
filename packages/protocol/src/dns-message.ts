/**
 * DNS messages as a proxy needs them (RFC 1035, EDNS of RFC 6891): the one question of a query, replies with addresses, and what makes a
 * forwarded message ours and another's again. No compression pointer is ever followed, so none can loop; nothing here throws for any bytes.
 */

export const dnsCodes = { ok: 0, formatError: 1, serverFailure: 2, notImplemented: 4, refused: 5, badVersion: 16 } as const;
export type DnsCode = (typeof dnsCodes)[keyof typeof dnsCodes];

export const dnsTypes = { a: 1, cname: 5, aaaa: 28, opt: 41 } as const;

/** Types by the names that metrics and logs use; all others are "unknown", so that a client cannot make names up. */
const typeNames: ReadonlyMap<number, string> = new Map([
  [1, "a"],
  [2, "ns"],
  [5, "cname"],
  [6, "soa"],
  [12, "ptr"],
  [13, "hinfo"],
  [15, "mx"],
  [16, "txt"],
  [28, "aaaa"],
  [33, "srv"],
  [35, "naptr"],
  [43, "ds"],
  [46, "rrsig"],
  [47, "nsec"],
  [48, "dnskey"],
  [50, "nsec3"],
  [52, "tlsa"],
  [64, "svcb"],
  [65, "https"],
  [251, "ixfr"],
  [252, "axfr"],
  [255, "any"],
  [257, "caa"],
]);

/** How each byte of a label is written. */
const characters: readonly string[] = Array.from({ length: 256 }, (_, byte) => {
  const character = String.fromCharCode(byte).toLowerCase();
  return /^[a-z0-9_*-]$/.test(character) ? character : `\\${String(byte).padStart(3, "0")}`;
});

export interface DnsQuestion {
  /** Lower case, without the trailing dot; anything but letters, digits, `-`, `_` and `*` in a label is `\DDD`. */
  readonly name: string;
  readonly type: number;
  readonly class: number;
  /** As it was asked, letter case included: a reply repeats it. */
  readonly bytes: Uint8Array;
}

/** What the client said about itself in an OPT record. */
export interface DnsExtension {
  readonly udpSize: number;
  readonly version: number;
  readonly dnssecOk: boolean;
}

export interface DnsQuery {
  readonly id: number;
  readonly flags: number;
  readonly question: DnsQuestion;
  readonly extension: DnsExtension | undefined;
}

export type DnsRequest =
  | { readonly kind: "query"; readonly query: DnsQuery }
  /** Answered with `refusal`. */
  | { readonly kind: "refused"; readonly code: DnsCode; readonly refusal: Uint8Array }
  /** Too short to be answered. */
  | { readonly kind: "noise" };

export interface DnsAnswer {
  readonly code: DnsCode;
  readonly authoritative: boolean;
  /** Of 4 or 16 bytes each; the record's type follows from the length. */
  readonly addresses: readonly Uint8Array[];
  /** The name that the addresses stand under, behind a CNAME from the question's. */
  readonly canonicalName: string | undefined;
  readonly ttlSeconds: number;
}

export const dnsMaxMessageBytes = 65_535;
/** What every client takes over UDP (RFC 1035 section 4.2.1). */
export const dnsPlainUdpBytes = 512;

/** What one IPv4 datagram can carry. */
const maxUdpBytes = 65_507;
const headerBytes = 12;
const classInternet = 1;
const maxNameBytes = 255;
const maxLabelBytes = 63;
const pointerBits = 0xc0;
const isResponse = 0x8000;
const opcodeBits = 0x7800;
const authoritativeBit = 0x0400;
const truncatedBit = 0x0200;
const recursionDesiredBit = 0x0100;
const recursionAvailableBit = 0x0080;
const checkingDisabledBit = 0x0010;
const codeBits = 0x000f;
const dnssecOkBit = 0x8000;
const optBytes = 11;
/** Where the question's name begins: records point there. */
const questionPointer = (pointerBits << 8) | headerBytes;

export function dnsTypeName(type: number): string {
  return typeNames.get(type) ?? "unknown";
}

/** Whether the question is one for records of the internet, which are all that a mesh has. */
export function isInternetQuestion(question: DnsQuestion): boolean {
  return question.class === classInternet;
}

/** Reads what a client sent. */
export function readDnsRequest(bytes: Uint8Array): DnsRequest {
  if (bytes.length < headerBytes) return { kind: "noise" };
  const view = viewOf(bytes);
  const [id, flags] = [view.getUint16(0), view.getUint16(2)];
  const refused = (code: DnsCode): DnsRequest => ({ kind: "refused", code, refusal: header(id, replyFlags(flags, code), 0, 0, 0) });
  if ((flags & isResponse) !== 0) return refused(dnsCodes.formatError);
  if ((flags & opcodeBits) !== 0) return refused(dnsCodes.notImplemented);
  if (view.getUint16(4) !== 1) return refused(dnsCodes.formatError);
  const question = readQuestion(bytes);
  if (question === undefined) return refused(dnsCodes.formatError);
  const extension = readExtension(bytes, headerBytes + question.bytes.length);
  if (extension === "malformed") return refused(dnsCodes.formatError);
  return { kind: "query", query: { id, flags, question, extension } };
}

/** The bytes of a reply no longer than `limit`; what does not fit is left out and the reply says so (TC). */
export function encodeDnsAnswer(query: DnsQuery, answer: DnsAnswer, limit: number): Uint8Array {
  const { question, extension } = query;
  const tail = extension === undefined ? new Uint8Array(0) : optRecord(extension, answer.code >> 4);
  const canonicalName = answer.canonicalName === undefined ? undefined : nameBytes(answer.canonicalName);
  const alias = canonicalName === undefined ? undefined : record(questionPointer, dnsTypes.cname, answer.ttlSeconds, canonicalName);
  // The CNAME's target begins after the owner, type, class, TTL and length of its record.
  const owner = alias === undefined ? questionPointer : (pointerBits << 8) | (headerBytes + question.bytes.length + 12);
  const records = answer.addresses.map((ip) => record(owner, ip.length === 4 ? dnsTypes.a : dnsTypes.aaaa, answer.ttlSeconds, ip));
  if (alias !== undefined) records.unshift(alias);
  let room = Math.min(limit, dnsMaxMessageBytes) - headerBytes - question.bytes.length - tail.length;
  const fitting: Uint8Array[] = [];
  for (const bytes of records) {
    room -= bytes.length;
    if (room < 0) break;
    fitting.push(bytes);
  }
  const truncated = fitting.length < records.length ? truncatedBit : 0;
  const flags = replyFlags(query.flags, answer.code) | (answer.authoritative ? authoritativeBit : 0) | truncated | recursionAvailableBit;
  const head = header(query.id, flags, 1, fitting.length, tail.length === 0 ? 0 : 1);
  return Buffer.concat([head, question.bytes, ...fitting, tail]);
}

/** What a client takes over UDP. */
export function dnsUdpLimit({ extension }: DnsQuery): number {
  return Math.min(maxUdpBytes, Math.max(dnsPlainUdpBytes, extension?.udpSize ?? dnsPlainUdpBytes));
}

/** The same message under another number. */
export function withDnsId(message: Uint8Array, id: number): Uint8Array {
  const copy = Uint8Array.from(message);
  viewOf(copy).setUint16(0, id);
  return copy;
}

/** Whether `response` is a resolver's word on `query`, which was sent under the number `id`: number, direction and question agree. */
export function isDnsResponseTo(query: DnsQuery, id: number, response: Uint8Array): boolean {
  if (response.length < headerBytes) return false;
  const view = viewOf(response);
  const flags = view.getUint16(2);
  if (view.getUint16(0) !== id || (flags & isResponse) === 0 || (flags & opcodeBits) !== 0) return false;
  // A resolver that could not read the question does not repeat it.
  if (view.getUint16(4) === 0) return (flags & codeBits) !== 0;
  const question = view.getUint16(4) === 1 ? readQuestion(response) : undefined;
  return question !== undefined && question.name === query.question.name && question.type === query.question.type && question.class === query.question.class;
}

/** A resolver's response as the client gets it: under the client's number, and not as the word of the name's own server. */
export function relayedDnsResponse(response: Uint8Array, query: DnsQuery): Uint8Array {
  const relayed = withDnsId(response, query.id);
  const view = viewOf(relayed);
  view.setUint16(2, view.getUint16(2) & ~authoritativeBit);
  return relayed;
}

/** The code in a message's header; undefined when there is none. */
export function dnsCodeOf(message: Uint8Array): number | undefined {
  return message.length < headerBytes ? undefined : viewOf(message).getUint16(2) & codeBits;
}

function readQuestion(bytes: Uint8Array): DnsQuestion | undefined {
  const labels: string[] = [];
  let at = headerBytes;
  for (;;) {
    const length = bytes[at];
    // A pointer in the first name of a message could only lead into the header.
    if (length === undefined || length > maxLabelBytes) return undefined;
    at += 1;
    if (length === 0) break;
    if (at + length > bytes.length || at + length - headerBytes >= maxNameBytes) return undefined;
    labels.push(labelText(bytes.subarray(at, at + length)));
    at += length;
  }
  if (at + 4 > bytes.length) return undefined;
  const view = viewOf(bytes);
  return { name: labels.join("."), type: view.getUint16(at), class: view.getUint16(at + 2), bytes: bytes.slice(headerBytes, at + 4) };
}

/** Walks over all records to the OPT among the additional ones. Each costs bytes, so the counts in the header bound nothing and need not. */
function readExtension(bytes: Uint8Array, start: number): DnsExtension | undefined | "malformed" {
  const view = viewOf(bytes);
  const before = view.getUint16(6) + view.getUint16(8);
  const total = before + view.getUint16(10);
  let extension: DnsExtension | undefined;
  let at: number | undefined = start;
  for (let index = 0; index < total; index += 1) {
    const atRoot = bytes[at] === 0;
    at = endOfName(bytes, at);
    if (at === undefined || at + 10 > bytes.length) return "malformed";
    const type = view.getUint16(at);
    const end = at + 10 + view.getUint16(at + 8);
    if (end > bytes.length) return "malformed";
    if (type === dnsTypes.opt) {
      // RFC 6891 section 6.1.1: one, at the root, among the additional records.
      if (extension !== undefined || !atRoot || index < before) return "malformed";
      extension = { udpSize: view.getUint16(at + 2), version: view.getUint8(at + 5), dnssecOk: (view.getUint16(at + 6) & dnssecOkBit) !== 0 };
    }
    at = end;
  }
  return extension;
}

/** Where a name ends: after its last label, or after the pointer that stands for the rest. */
function endOfName(bytes: Uint8Array, start: number): number | undefined {
  let at = start;
  for (;;) {
    const length = bytes[at];
    if (length === undefined) return undefined;
    if (length === 0) return at + 1;
    if ((length & pointerBits) === pointerBits) return at + 2 <= bytes.length ? at + 2 : undefined;
    if (length > maxLabelBytes) return undefined;
    at += 1 + length;
    if (at - start > maxNameBytes) return undefined;
  }
}

function labelText(label: Uint8Array): string {
  let text = "";
  for (const byte of label) text += characters[byte] ?? "";
  return text;
}

/** Of a name that is one: its labels come from a question or from a hostname that matched one. */
function nameBytes(name: string): Uint8Array {
  const labels = name.split(".").flatMap((label) => [label.length, ...Buffer.from(label, "latin1")]);
  return Uint8Array.from([...labels, 0]);
}

function record(owner: number, type: number, ttlSeconds: number, data: Uint8Array): Uint8Array {
  const bytes = Buffer.alloc(12 + data.length);
  bytes.writeUInt16BE(owner, 0);
  bytes.writeUInt16BE(type, 2);
  bytes.writeUInt16BE(classInternet, 4);
  bytes.writeUInt32BE(ttlSeconds, 6);
  bytes.writeUInt16BE(data.length, 10);
  bytes.set(data, 12);
  return bytes;
}

/** The client's own size is repeated; the upper bits of the code have their place here (RFC 6891 section 6.1.3). */
function optRecord({ udpSize, dnssecOk }: DnsExtension, upperCode: number): Uint8Array {
  const bytes = Buffer.alloc(optBytes);
  bytes.writeUInt16BE(dnsTypes.opt, 1);
  bytes.writeUInt16BE(Math.max(dnsPlainUdpBytes, udpSize), 3);
  bytes.writeUInt8(upperCode, 5);
  bytes.writeUInt16BE(dnssecOk ? dnssecOkBit : 0, 7);
  return bytes;
}

function header(id: number, flags: number, questions: number, answers: number, additionals: number): Buffer {
  const bytes = Buffer.alloc(headerBytes);
  bytes.writeUInt16BE(id, 0);
  bytes.writeUInt16BE(flags, 2);
  bytes.writeUInt16BE(questions, 4);
  bytes.writeUInt16BE(answers, 6);
  bytes.writeUInt16BE(additionals, 10);
  return bytes;
}

function replyFlags(queryFlags: number, code: DnsCode): number {
  return isResponse | (queryFlags & (opcodeBits | recursionDesiredBit | checkingDisabledBit)) | (code & codeBits);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
