/** Where the body of an HTTP/1 message ends (RFC 9112 6): decided here, once, and never left to what a client wrote. */
import { garbage, isBodiless, malformed, parseContentLength } from "../message-rules.ts";
import type { FieldBlock } from "./header-block.ts";

export type Framing =
  /** No body. `announced`: the length a body would have had (HEAD, 304). */
  | { readonly kind: "none"; readonly announced: number | undefined; readonly doubtful: boolean }
  | { readonly kind: "length"; readonly length: number; readonly doubtful: boolean }
  | { readonly kind: "chunked"; readonly doubtful: boolean }
  | { readonly kind: "until-close"; readonly doubtful: boolean };
// `doubtful`: read, but nothing after it on this connection is to be trusted.

const noBody: Framing = { kind: "none", announced: undefined, doubtful: false };
const chunked: Framing = { kind: "chunked", doubtful: false };
const doubtfullyChunked: Framing = { kind: "chunked", doubtful: true };
const untilClose: Framing = { kind: "until-close", doubtful: false };

type FramingFields = Pick<FieldBlock, "lengths" | "contentLength" | "transferEncoding">;

/** Anything two servers could read differently is refused (waypoint contract 6.1). */
export function requestFraming({ lengths, contentLength, transferEncoding }: FramingFields, minor: 0 | 1): Framing {
  if (transferEncoding !== undefined) {
    if (lengths > 0) throw malformed(400, "both Content-Length and Transfer-Encoding");
    if (minor === 0) throw malformed(400, "Transfer-Encoding in HTTP/1.0");
    if (transferEncoding.toLowerCase() !== "chunked") throw malformed(400, "a Transfer-Encoding that is not chunked");
    return chunked;
  }
  if (contentLength === undefined) return noBody;
  if (lengths > 1) throw malformed(400, "Content-Length is given more than once");
  const length = parseContentLength(contentLength);
  if (length === undefined) throw malformed(400, "Content-Length is not a number");
  return { kind: "length", length, doubtful: false };
}

export function responseFraming(
  { lengths, contentLength, transferEncoding }: FramingFields,
  { minor, method, status }: { minor: 0 | 1; method: string; status: number },
): Framing {
  if (lengths > 1) throw garbage("Content-Length is given more than once");
  const length = contentLength === undefined ? undefined : parseContentLength(contentLength);
  if (contentLength !== undefined && length === undefined) throw garbage("Content-Length is not a number");
  if (isBodiless(method, status)) {
    const announced = method === "HEAD" || status === 304 ? length : undefined;
    return announced === undefined ? noBody : { kind: "none", announced, doubtful: false };
  }
  if (transferEncoding !== undefined) {
    if (minor === 0) throw garbage("Transfer-Encoding in HTTP/1.0");
    if (transferEncoding.toLowerCase() !== "chunked") throw garbage("a Transfer-Encoding that is not chunked");
    return lengths > 0 ? doubtfullyChunked : chunked;
  }
  return length === undefined ? untilClose : { kind: "length", length, doubtful: false };
}
