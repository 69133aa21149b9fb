/** The strict edge of the generated decoders: whole messages, valid UTF-8, known enum values, one error type. */
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { InvalidValueError } from "@fairway/model";
import { ProtocolDecodeError } from "./protocol-error.ts";

interface Decodable<T> {
  decode(reader: BinaryReader): T;
}

/**
 * Decodes exactly one message from all of `bytes`. The generated decoders stop silently at a zero tag and accept a nested length that
 * runs over its parent, so the end position is checked here: bytes left over mean that something was not understood.
 */
export function readMessage<T>(type: Decodable<T>, name: string, bytes: Uint8Array): T {
  const reader = new BinaryReader(bytes, decodeUtf8);
  let message: T;
  try {
    message = type.decode(reader);
  } catch (cause) {
    throw new ProtocolDecodeError("PROTOCOL_MALFORMED", `not a ${name}: ${cause instanceof Error ? cause.message : "unreadable"}`, { cause });
  }
  if (reader.pos !== reader.len) throw new ProtocolDecodeError("PROTOCOL_MALFORMED", `not a ${name}: ended at byte ${reader.pos} of ${reader.len}`);
  return message;
}

/** Runs a parser of the model and names the field when the value is refused. */
export function readField<T>(field: string, parse: () => T): T {
  try {
    return parse();
  } catch (cause) {
    if (cause instanceof InvalidValueError) throw new ProtocolDecodeError("PROTOCOL_INVALID_FIELD", `${field}: ${cause.message}`, { cause });
    throw cause;
  }
}

/** The word for an enum number; enums are dense from 0, so a word's position is its number. */
export function readEnum<T extends string>(field: string, words: readonly T[], value: number): T {
  const word = words[value];
  if (word === undefined) throw new ProtocolDecodeError("PROTOCOL_UNKNOWN_ENUM", `${field}: unknown value ${value}`);
  return word;
}

/** 0 is allowed: where it may stand, it means "not set". */
export function readPort(field: string, port: number): number {
  if (port > 65_535) throw new ProtocolDecodeError("PROTOCOL_INVALID_FIELD", `${field}: ${port} is not a port`);
  return port;
}

export function requireField<T>(field: string, value: T | undefined): T {
  if (value === undefined || value === "") throw new ProtocolDecodeError("PROTOCOL_MISSING_FIELD", `${field}: missing`);
  return value;
}

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decodeUtf8(bytes: Uint8Array): string {
  return strictUtf8.decode(bytes);
}
