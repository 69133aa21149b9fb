/** The lines of a header block: names, values, and those fields apart that speak of the connection or the framing. Pure and strict. */
import { HeaderFields } from "@fairway/model";
import type { MeshError } from "@fairway/runtime";
import { garbage, isConnectionField, isTrailerField, malformed, tokenKinds, valueCharacters } from "../message-rules.ts";

const [tab, lineFeed, carriageReturn, space, colon] = [0x09, 0x0a, 0x0d, 0x20, 0x3a] as const;

/** Makes the error for a fault in a header block. */
export type HeadFault = (status: number, detail: string) => MeshError;
export const requestFault: HeadFault = malformed;
export const responseFault: HeadFault = (_, detail) => garbage(detail);

/** What a header block says, those fields apart that speak of the connection or the framing. */
export interface FieldBlock {
  readonly flat: string[];
  hosts: number;
  host: string | undefined;
  lengths: number;
  contentLength: string | undefined;
  transferEncoding: string | undefined;
  connection: string | undefined;
  upgrade: string | undefined;
  te: string | undefined;
  expect: string | undefined;
}

export function parseFields(text: string, from: number, maxCount: number, fault: HeadFault): FieldBlock {
  const block: FieldBlock = {
    flat: [],
    hosts: 0,
    host: undefined,
    lengths: 0,
    contentLength: undefined,
    transferEncoding: undefined,
    connection: undefined,
    upgrade: undefined,
    te: undefined,
    expect: undefined,
  };
  let count = 0;
  for (let at = from; at < text.length; ) {
    count += 1;
    if (count > maxCount) throw fault(431, `more than ${maxCount} header fields`);
    let end = at;
    let code = text.charCodeAt(end);
    let upper = false;
    for (let kind = tokenKinds[code]; kind; kind = tokenKinds[code]) {
      if (kind === 2) upper = true;
      end += 1;
      code = text.charCodeAt(end);
    }
    // Also where a line is folded: it begins with white space (RFC 9112 5.2).
    if (code !== colon || end === at) throw fault(400, "a header field's name is not a token followed by a colon");
    const name = upper ? text.slice(at, end).toLowerCase() : text.slice(at, end);
    let start = end + 1;
    code = text.charCodeAt(start);
    while (code === space || code === tab) {
      start += 1;
      code = text.charCodeAt(start);
    }
    end = start;
    while (valueCharacters[code]) {
      end += 1;
      code = text.charCodeAt(end);
    }
    if (code !== carriageReturn || text.charCodeAt(end + 1) !== lineFeed) throw fault(400, "a header field's value has a control character");
    at = end + 2;
    for (code = text.charCodeAt(end - 1); end > start && (code === space || code === tab); code = text.charCodeAt(end - 1)) end -= 1;
    take(block, name, text.slice(start, end));
  }
  return block;
}

function take(block: FieldBlock, name: string, value: string): void {
  switch (name.length) {
    case 2:
      if (name !== "te") break;
      block.te = joined(block.te, value);
      return;
    case 4:
      if (name !== "host") break;
      block.hosts += 1;
      block.host = value;
      return;
    case 6:
      if (name !== "expect") break;
      block.expect = joined(block.expect, value);
      return;
    case 7:
      if (name !== "upgrade") break;
      block.upgrade = joined(block.upgrade, value);
      return;
    case 10:
      if (name !== "connection") break;
      block.connection = joined(block.connection, value);
      return;
    case 14:
      if (name !== "content-length") break;
      block.lengths += 1;
      block.contentLength = value;
      return;
    case 17:
      if (name !== "transfer-encoding") break;
      block.transferEncoding = joined(block.transferEncoding, value);
      return;
  }
  if (!isConnectionField(name)) block.flat.push(name, value);
}

function joined(before: string | undefined, value: string): string {
  return before === undefined ? value : `${before}, ${value}`;
}

/** Trailers after a chunked body: `text` has the CRLF of its last line. Fields a trailer must not carry are left out. */
export function parseTrailers(text: string, maxCount: number, fault: HeadFault): HeaderFields | undefined {
  const { flat } = parseFields(text, 0, maxCount, fault);
  const trailers = new HeaderFields();
  for (let at = 0; at < flat.length; at += 2) {
    const name = flat[at] ?? "";
    if (isTrailerField(name)) trailers.append(name, flat[at + 1] ?? "");
  }
  return trailers.size === 0 ? undefined : trailers;
}
