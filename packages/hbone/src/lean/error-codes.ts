/** Error codes of HTTP/2 (RFC 9113 section 7), and the error that ends a connection. */
import { MeshError } from "@fairway/runtime";

export const errorCodes = {
  noError: 0,
  protocolError: 1,
  internalError: 2,
  flowControlError: 3,
  settingsTimeout: 4,
  streamClosed: 5,
  frameSizeError: 6,
  refusedStream: 7,
  cancel: 8,
  compressionError: 9,
  connectError: 10,
  enhanceYourCalm: 11,
  inadequateSecurity: 12,
  http11Required: 13,
} as const;

const names: ReadonlyMap<number, string> = new Map(
  Object.entries(errorCodes).map(([name, code]) => [
    code,
    name === "http11Required" ? "HTTP_1_1_REQUIRED" : name.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase(),
  ]),
);

/** The name of RFC 9113, or the number of a code it does not know. */
export function errorName(code: number): string {
  return names.get(code) ?? `0x${code.toString(16)}`;
}

/** The peer broke a rule after which the connection cannot go on (RFC 9113 5.4.1). */
export class ConnectionFault extends MeshError<"HBONE_PROTOCOL"> {
  /** What the GOAWAY says. */
  readonly http2Code: number;

  constructor(http2Code: number, what: string) {
    super("HBONE_PROTOCOL", `the tunnel was ended with ${errorName(http2Code)}: ${what}`, { details: { reset: errorName(http2Code) } });
    this.http2Code = http2Code;
  }
}
