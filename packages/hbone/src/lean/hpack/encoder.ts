/** The encoding half of HPACK (RFC 7541): static names, literal values, never the dynamic table and never Huffman. */
import { type HeaderField, staticTable } from "./static-table.ts";

const nameIndexes: ReadonlyMap<string, number> = new Map(staticTable.map(([name], index) => [name, index + 1] as const).reverse());
const fieldIndexes: ReadonlyMap<string, number> = new Map(
  staticTable
    .filter(([, value]) => value !== "")
    .map(([name, value]) => [`${name}\n${value}`, 1 + staticTable.findIndex((entry) => entry[0] === name && entry[1] === value)]),
);
/** `001` with size 0: the table is given up (RFC 7541 6.3). */
const tableSizeZero = 0x20;

export class HpackEncoder {
  #updateDue = false;

  /** The peer's SETTINGS reduced the table: the next block says that it is empty, as RFC 9113 4.3.1 asks. */
  tableReduced(): void {
    this.#updateDue = true;
  }

  /** Names must be lower case and values Latin-1; both are the caller's to check. */
  encode(fields: readonly HeaderField[]): Buffer {
    let most = 1;
    for (const [name, value] of fields) most += name.length + value.length + fieldOverhead;
    const block = Buffer.allocUnsafe(most);
    let at = 0;
    if (this.#updateDue) {
      block[at++] = tableSizeZero;
      this.#updateDue = false;
    }
    for (const [name, value] of fields) {
      const whole = value.length <= longestStaticValue ? fieldIndexes.get(`${name}\n${value}`) : undefined;
      if (whole !== undefined) {
        // Static indexes are below the prefix's maximum.
        block[at++] = 0x80 | whole;
        continue;
      }
      const index = nameIndexes.get(name);
      at = integer(block, at, 0, 4, index ?? 0);
      if (index === undefined) at = string(block, at, name);
      at = string(block, at, value);
    }
    return block.subarray(0, at);
  }
}

/** Three integers of at most five bytes each. */
const fieldOverhead = 15;
const longestStaticValue: number = Math.max(...staticTable.map(([, value]) => value.length));

function string(block: Buffer, at: number, text: string): number {
  const start = integer(block, at, 0, 7, text.length);
  return start + block.write(text, start, "latin1");
}

function integer(block: Buffer, at: number, flags: number, bits: number, value: number): number {
  const mask = (1 << bits) - 1;
  if (value < mask) {
    block[at] = flags | value;
    return at + 1;
  }
  let end = at;
  block[end++] = flags | mask;
  let rest = value - mask;
  for (; rest >= 128; rest >>>= 7) block[end++] = (rest & 0x7f) | 0x80;
  block[end++] = rest;
  return end;
}
