/** Changes to encoded resources, for the tests of strict reading. */
import type { ExecutionContext } from "ava";
import { ProtocolDecodeError } from "./protocol-error.ts";

/** A message of generated types, to be changed in place. */
export type Mutable<T> = T extends Uint8Array | Map<string, unknown> ? T : T extends object ? { -readonly [K in keyof T]: Mutable<T[K]> } : T;

export interface WireType<T> {
  decode(bytes: Uint8Array): T;
  encode(message: T): { finish(): Uint8Array };
}

export function changed<T>(type: WireType<T>, bytes: Uint8Array, change: (message: Mutable<T>) => unknown): Uint8Array {
  const message = type.decode(bytes);
  change(message as Mutable<T>);
  return type.encode(message).finish();
}

/** Sets fields of a message that should be there. */
export function set<T extends object>(message: T | undefined, fields: { readonly [K in keyof T]?: T[K] | undefined }): void {
  if (message === undefined) throw new Error("the sample has no such message");
  Object.assign(message, fields);
}

export function refuses(t: ExecutionContext, decode: (bytes: Uint8Array) => unknown, bytes: Uint8Array, message: string): void {
  t.is(t.throws(() => decode(bytes), { instanceOf: ProtocolDecodeError })?.message, message);
}

/** The content of a message that is there and says nothing. */
export const empty: Uint8Array = new Uint8Array();
