/** Where in a resource a reader stands, and the strict end of every message: a field that is set and was not read is refused by its name. */
import { InvalidValueError } from "@fairway/model";
import { ProtocolDecodeError, type ProtocolDecodeErrorCode } from "../protocol-error.ts";

interface Message<T> {
  fromPartial(object: Record<string, never>): T;
}

/** Fields that may be set and are passed over, each with the reason why that is safe. */
export type Harmless<T> = { readonly [Field in keyof T]?: string };

type Rest<T> = Partial<T> & { readonly _unknownFields?: { readonly [field: number]: unknown } | undefined };

/** `route "x": retry_policy`; errors start with it. */
export class Place {
  readonly #inside: Place | undefined;
  readonly #name: string;

  /** `name`: of the resource, or of the part of it that an author knows. */
  constructor(name: string, inside?: Place) {
    this.#name = name;
    this.#inside = inside;
  }

  /** Costs nothing until something is wrong. */
  at(field: string): Place {
    return new Place(field, this);
  }

  toString(): string {
    if (this.#inside === undefined) return this.#name;
    return `${this.#inside}${this.#inside.#inside === undefined ? ": " : "."}${this.#name}`;
  }

  unsupported(): ProtocolDecodeError {
    return this.#error("PROTOCOL_UNSUPPORTED_FIELD", " is not supported");
  }

  /** The oneof `name` is unset, or set to a member that is not honoured. */
  refuse(name: string, oneof: { readonly $case: string } | undefined): ProtocolDecodeError {
    return oneof === undefined ? this.at(name).missing() : this.at(wireName(oneof.$case)).unsupported();
  }

  invalid(why: string): ProtocolDecodeError {
    return this.#error("PROTOCOL_INVALID_FIELD", `: ${why}`);
  }

  missing(): ProtocolDecodeError {
    return this.#error("PROTOCOL_MISSING_FIELD", ": missing");
  }

  unknownEnum(value: number): ProtocolDecodeError {
    return this.#error("PROTOCOL_UNKNOWN_ENUM", `: unknown value ${value}`);
  }

  required<T>(value: T | undefined): T {
    if (value === undefined || value === "") throw this.missing();
    return value;
  }

  /** Runs a parser of the model; a value that it refuses is a fault of this field. */
  parse<T>(parse: () => T): T {
    try {
      return parse();
    } catch (cause) {
      if (cause instanceof InvalidValueError) throw this.invalid(cause.message);
      throw cause;
    }
  }

  /** Ends the reading of a message: `rest` is what the reader took nothing from. */
  refuseRest<T extends object>(type: Message<T>, rest: Rest<T>, harmless: Harmless<T> = {}): void {
    const { _unknownFields, ...known } = rest;
    const [unknown] = Object.keys(_unknownFields ?? {});
    // Generated types keep the whole tag: number and wire type.
    if (unknown !== undefined) throw this.at(`field ${Number(unknown) >>> 3}`).unsupported();
    const unset: Readonly<Record<string, unknown>> = defaultsOf(type) as Readonly<Record<string, unknown>>;
    for (const [field, value] of Object.entries(known)) {
      if (isSet(value, unset[field]) && !Object.hasOwn(harmless, field)) throw this.at(fieldName(field, value)).unsupported();
    }
  }

  #error(code: ProtocolDecodeErrorCode, text: string): ProtocolDecodeError {
    return new ProtocolDecodeError(code, `${this}${text}`);
  }
}

const defaults = new Map<unknown, object>();

function defaultsOf<T extends object>(type: Message<T>): object {
  let found = defaults.get(type);
  if (found === undefined) {
    found = type.fromPartial({});
    defaults.set(type, found);
  }
  return found;
}

function isSet(value: unknown, unset: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof Map) return value.size > 0;
  if (value instanceof Uint8Array && unset instanceof Uint8Array) return value.length > 0;
  return value !== unset;
}

/** Of a oneof the member that is set. */
function fieldName(field: string, value: unknown): string {
  return wireName(typeof value === "object" && value !== null && "$case" in value ? String(value.$case) : field);
}

/** The name in the .proto file. */
export function wireName(field: string): string {
  return field.replace(/(?<=[a-z])(?=100|5xx)/, "_").replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
