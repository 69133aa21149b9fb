/** What the codecs throw. Decoding throws nothing else, whatever the bytes are. */

/**
 * - PROTOCOL_MALFORMED: the bytes are not a message of this type (truncated, trailing bytes, invalid UTF-8).
 * - PROTOCOL_MISSING_FIELD: a field without which the message means nothing is absent.
 * - PROTOCOL_INVALID_FIELD: a field holds what it must not (an IP of five bytes, port 70000).
 * - PROTOCOL_UNKNOWN_ENUM: an enum value of a newer peer whose meaning we cannot guess.
 * - PROTOCOL_UNSUPPORTED_FIELD: a field is set that would change what the resource means, and that nothing here honours.
 */
export type ProtocolDecodeErrorCode =
  | "PROTOCOL_MALFORMED"
  | "PROTOCOL_MISSING_FIELD"
  | "PROTOCOL_INVALID_FIELD"
  | "PROTOCOL_UNKNOWN_ENUM"
  | "PROTOCOL_UNSUPPORTED_FIELD";

/** The message names the field; the xDS client sends it back as the reason of a NACK. */
export class ProtocolDecodeError extends Error {
  readonly code: ProtocolDecodeErrorCode;

  constructor(code: ProtocolDecodeErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "ProtocolDecodeError";
    this.code = code;
  }
}

/** A value that has no form on the wire, such as a ZDS request longer than one datagram. */
export class ProtocolEncodeError extends Error {
  readonly code = "PROTOCOL_TOO_LARGE";

  constructor(message: string) {
    super(message);
    this.name = "ProtocolEncodeError";
  }
}
