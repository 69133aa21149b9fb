/**
 * The decoding half of HPACK (RFC 7541), whole: the peer may use everything until it acknowledged our table size of 0.
 * What a block decodes to is limited in bytes and in fields, so that a small block of references cannot become much memory.
 */
import { ConnectionFault, errorCodes } from "../error-codes.ts";
import { DynamicTable, fieldSize } from "./dynamic-table.ts";
import { decodeHuffman } from "./huffman.ts";
import { type HeaderField, staticTable } from "./static-table.ts";

export interface DecodedBlock {
  readonly fields: readonly HeaderField[];
  /** The limits were exceeded; `fields` is incomplete, but the decoder is in step with the peer. */
  readonly tooLarge: boolean;
}

export interface DecoderLimits {
  /** Sum of names, values and 32 per field, as SETTINGS_MAX_HEADER_LIST_SIZE counts. */
  readonly maxListBytes: number;
  readonly maxFields: number;
}

/** SETTINGS_HEADER_TABLE_SIZE before any SETTINGS (RFC 9113 6.5.2). */
export const defaultTableSize = 4_096;
/** Larger integers have no honest use in a header block; also keeps sums exact. */
const maxInteger = 0x0fff_ffff;
/** Bytes an integer may take after its prefix; 4 reach the maximum, the rest is for encoders that pad. */
const maxIntegerBytes = 5;

export class HpackDecoder {
  readonly #limits: DecoderLimits;
  readonly #table = new DynamicTable(defaultTableSize);
  #tableLimit = defaultTableSize;
  /** The peer must open its next block with a table size update, for it holds entries that the new limit forbids. */
  #updateDue = false;
  #block: Buffer = Buffer.alloc(0);
  #at = 0;

  constructor(limits: DecoderLimits) {
    this.#limits = limits;
  }

  /** The peer acknowledged another SETTINGS_HEADER_TABLE_SIZE. */
  setTableLimit(limit: number): void {
    // RFC 9113 4.3.1 demands an update after any reduction; a peer whose table is empty loses nothing by leaving it out, and some do.
    if (limit < this.#tableLimit && this.#table.size > limit) this.#updateDue = true;
    else if (limit < this.#tableLimit) this.#table.resize(limit);
    this.#tableLimit = limit;
  }

  /** Throws ConnectionFault COMPRESSION_ERROR; the connection cannot go on after that (RFC 9113 4.3). */
  decode(block: Buffer): DecodedBlock {
    this.#block = block;
    this.#at = 0;
    const fields: HeaderField[] = [];
    let bytes = 0;
    let tooLarge = false;
    let updatesAllowed = true;
    while (this.#at < block.length) {
      const first = block[this.#at] ?? 0;
      // 001: a dynamic table size update, only before the first field (RFC 7541 4.2).
      if ((first & 0xe0) === 0x20) {
        if (!updatesAllowed) throw fault("a table size update after a header field");
        this.#resize(this.#integer(5));
        continue;
      }
      if (this.#updateDue) throw fault("the table size update that our SETTINGS ask for is missing");
      updatesAllowed = false;
      const field = this.#field(first);
      bytes += fieldSize(field);
      if (bytes > this.#limits.maxListBytes || fields.length >= this.#limits.maxFields) tooLarge = true;
      if (!tooLarge) fields.push(field);
    }
    this.#block = emptyBlock;
    return { fields, tooLarge };
  }

  #field(first: number): HeaderField {
    // 1: indexed (RFC 7541 6.1).
    if ((first & 0x80) !== 0) return this.#entry(this.#integer(7));
    // 01: literal with incremental indexing; 0000 and 0001: without, and never indexed (RFC 7541 6.2).
    const indexed = (first & 0x40) !== 0;
    const index = this.#integer(indexed ? 6 : 4);
    const name = index === 0 ? this.#string() : this.#entry(index)[0];
    const field: HeaderField = [name, this.#string()];
    if (indexed) this.#table.add(field);
    return field;
  }

  #entry(index: number): HeaderField {
    const entry = index <= staticTable.length ? staticTable[index - 1] : this.#table.get(index - staticTable.length - 1);
    if (entry === undefined) throw fault("an index points at no entry");
    return entry;
  }

  #resize(capacity: number): void {
    if (capacity > this.#tableLimit) throw fault("a table size update above the limit");
    this.#table.resize(capacity);
    this.#updateDue = false;
  }

  #string(): string {
    const huffman = ((this.#block[this.#at] ?? 0) & 0x80) !== 0;
    const length = this.#integer(7);
    const start = this.#at;
    const end = start + length;
    if (end > this.#block.length) throw fault("a string reaches past its block");
    this.#at = end;
    return huffman ? decodeHuffman(this.#block, start, end) : this.#block.toString("latin1", start, end);
  }

  /** An integer whose prefix is the low `bits` of the next byte (RFC 7541 5.1). */
  #integer(bits: number): number {
    const mask = (1 << bits) - 1;
    const prefix = this.#block[this.#at++];
    if (prefix === undefined) throw fault("an integer reaches past its block");
    let value = prefix & mask;
    if (value < mask) return value;
    for (let count = 0; count < maxIntegerBytes; count++) {
      const byte = this.#block[this.#at++];
      if (byte === undefined) throw fault("an integer reaches past its block");
      value += (byte & 0x7f) * 2 ** (7 * count);
      if (value > maxInteger) throw fault("an integer is too large");
      if ((byte & 0x80) === 0) return value;
    }
    throw fault("an integer is too long");
  }
}

const emptyBlock: Buffer = Buffer.alloc(0);

function fault(what: string): ConnectionFault {
  return new ConnectionFault(errorCodes.compressionError, what);
}
