/**
 * The Huffman code of HPACK (RFC 7541 5.2 and appendix B). The code is canonical: codes of one length follow each other in the order of
 * their symbols, so the lengths are all there is to write down. Decoding goes by half bytes through a table of states.
 */
import { ConnectionFault, errorCodes } from "../error-codes.ts";

/** Bits of the code of each byte (RFC 7541 appendix B). */
const codeLengths: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11,
  10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
  8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23,
  22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
  23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26,
  27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
  27, 27, 26,
];
const endOfString = 256;
const endOfStringLength = 30;
/** Shortest code, in bits: a byte of input gives at most 8/5 bytes of output. */
const shortestCode = 5;
/** Padding is the start of the end-of-string symbol and shorter than a byte (RFC 7541 5.2). */
const mostPadding = 7;

/** An entry of the table: the next state in the low byte, then whether a symbol came out, and which. */
const emitFlag = 0x100;
const symbolShift = 16;
const invalid = 0xffff_ffff;

const { transitions, accepting } = makeTable();

/** Decodes `text[start, end)`. Throws ConnectionFault COMPRESSION_ERROR for what no encoder produces. */
export function decodeHuffman(text: Uint8Array, start: number, end: number): string {
  const decoded = Buffer.allocUnsafe(Math.ceil(((end - start) * 8) / shortestCode));
  let length = 0;
  let state = 0;
  for (let at = start; at < end; at++) {
    const byte = text[at] ?? 0;
    const high = transitions[(state << 4) | (byte >> 4)] ?? invalid;
    if (high === invalid) throw invalidCode();
    if ((high & emitFlag) !== 0) decoded[length++] = high >>> symbolShift;
    const low = transitions[((high & 0xff) << 4) | (byte & 15)] ?? invalid;
    if (low === invalid) throw invalidCode();
    if ((low & emitFlag) !== 0) decoded[length++] = low >>> symbolShift;
    state = low & 0xff;
  }
  if (accepting[state] !== 1) throw invalidCode();
  return decoded.toString("latin1", 0, length);
}

function invalidCode(): ConnectionFault {
  return new ConnectionFault(errorCodes.compressionError, "a header string is no Huffman code");
}

/** The states are the inner nodes of the code's tree; state 0 is its root. There are 256 of them for 257 leaves. */
function makeTable(): { transitions: Uint32Array; accepting: Uint8Array } {
  const children: [number, number][] = [[0, 0]];
  const symbols = [...codeLengths, endOfStringLength].map((length, symbol) => ({ length, symbol })).sort((a, b) => a.length - b.length || a.symbol - b.symbol);
  let code = 0;
  let previous = symbols[0]?.length ?? 0;
  for (const { length, symbol } of symbols) {
    code <<= length - previous;
    previous = length;
    insert(children, code, length, symbol);
    code += 1;
  }
  const transitions = new Uint32Array(children.length * 16);
  for (let state = 0; state < children.length; state++) {
    for (let nibble = 0; nibble < 16; nibble++) transitions[(state << 4) | nibble] = walk(children, state, nibble);
  }
  const accepting = new Uint8Array(children.length);
  for (let depth = 0, node = 0; depth <= mostPadding && node >= 0; depth++) {
    accepting[node] = 1;
    node = children[node]?.[1] ?? -1;
  }
  return { transitions, accepting };
}

/** Leaves are negative: -1 - symbol. Nought is a child that is not there yet. */
function insert(children: [number, number][], code: number, length: number, symbol: number): void {
  let node = 0;
  for (let bit = length - 1; bit > 0; bit--) {
    const side = (code >>> bit) & 1;
    const pair = children[node] ?? [0, 0];
    if (pair[side] === 0) {
      pair[side] = children.length;
      children.push([0, 0]);
    }
    node = pair[side] ?? 0;
  }
  const pair = children[node];
  if (pair !== undefined) pair[code & 1] = -1 - symbol;
}

function walk(children: readonly (readonly [number, number])[], from: number, nibble: number): number {
  let node = from;
  let emitted = 0;
  for (let bit = 3; bit >= 0; bit--) {
    const next = children[node]?.[(nibble >> bit) & 1] ?? 0;
    if (next === 0 || next === -1 - endOfString) return invalid;
    if (next < 0) {
      emitted = emitFlag | ((-1 - next) << symbolShift);
      node = 0;
    } else node = next;
  }
  return (emitted | node) >>> 0;
}
