/**
 * Decodes Kubernetes' protobuf encoding into the JSON form. kubectl's typed commands (create, auth can-i, create token) send it;
 * answers are always JSON, which those clients accept. What is not in the table is refused, never dropped.
 */
import { ApiError } from "./api-error.ts";
import { type Json, type JsonObject, maxJsonDepth } from "./json.ts";
import { messageTexts } from "./protobuf-messages.ts";

export const protobufType = "application/vnd.kubernetes.protobuf";

interface Field {
  readonly name: string;
  readonly type: string;
  readonly optional: boolean;
  readonly repeated: boolean;
}

const messages: ReadonlyMap<string, ReadonlyMap<number, Field>> = new Map(
  Object.entries(messageTexts).map(([message, text]) => [
    message,
    new Map(
      text.split(" ").map((entry) => {
        const [number = "", name = "", type = ""] = entry.split(":");
        return [Number(number), { name, type: type.replace(/[?*]/g, ""), optional: type.includes("?"), repeated: type.endsWith("*") }];
      }),
    ),
  ]),
);

const magic = Buffer.from("k8s\0");

/** Throws 400 for bytes that are no such message, and 415 for kinds and fields the table does not hold. */
export function decodeProtobuf(bytes: Buffer): JsonObject {
  if (!bytes.subarray(0, 4).equals(magic)) throw ApiError.badRequest("the body of the request is not in Kubernetes' protobuf encoding");
  let typeMeta: { apiVersion?: string; kind?: string } = {};
  let raw: Buffer = Buffer.alloc(0);
  for (const { number, value } of fieldsOf(bytes.subarray(4))) {
    if (number === 1 && Buffer.isBuffer(value)) typeMeta = readTypeMeta(value);
    else if (number === 2 && Buffer.isBuffer(value)) raw = value;
  }
  const { apiVersion = "", kind = "" } = typeMeta;
  if (!messages.has(kind)) throw ApiError.unsupportedMediaType(`${protobufType} of ${kind.slice(0, 64)}; send JSON`);
  return { apiVersion, kind, ...decodeMessage(raw, kind, 0) };
}

function readTypeMeta(bytes: Buffer): { apiVersion?: string; kind?: string } {
  const found: { apiVersion?: string; kind?: string } = {};
  for (const { number, value } of fieldsOf(bytes)) {
    if (number === 1 && Buffer.isBuffer(value)) found.apiVersion = value.toString("utf8");
    else if (number === 2 && Buffer.isBuffer(value)) found.kind = value.toString("utf8");
  }
  return found;
}

function decodeMessage(bytes: Buffer, message: string, depth: number): JsonObject {
  if (depth > maxJsonDepth) throw ApiError.badRequest("the document is nested too deep");
  const known = messages.get(message);
  if (known === undefined) throw ApiError.unsupportedMediaType(`${protobufType} with ${message}; send JSON`);
  const out: JsonObject = {};
  for (const { number, value } of fieldsOf(bytes)) {
    const field = known.get(number);
    if (field === undefined) throw ApiError.unsupportedMediaType(`${protobufType} with field ${number} of ${message}; send JSON`);
    if (field.type === "-") continue;
    if (field.name === "") {
      Object.assign(out, decodeMessage(bufferOf(value), field.type, depth + 1));
      continue;
    }
    const decoded = decodeValue(value, field, depth);
    if (field.repeated) {
      const list = out[field.name];
      if (Array.isArray(list)) list.push(decoded ?? "");
      else out[field.name] = [decoded ?? ""];
    } else if (field.type === "m" || field.type === "M" || field.type === "R") {
      const [key, item] = mapEntry(bufferOf(value), field.type);
      const map = out[field.name];
      if (key === "__proto__") throw ApiError.badRequest('the document holds the key "__proto__"');
      if (typeof map === "object" && map !== null && !Array.isArray(map)) map[key] = item;
      else out[field.name] = { [key]: item };
    } else if (decoded !== undefined) out[field.name] = decoded;
  }
  return out;
}

type Wire = Buffer | bigint;

/** A value in its JSON form; undefined for a zero that the Go type cannot tell from absence. */
function decodeValue(value: Wire, { type, optional, repeated }: Field, depth: number): Json | undefined {
  const keepZero = optional || repeated;
  switch (type) {
    case "s": {
      const text = bufferOf(value).toString("utf8");
      return text === "" && !keepZero ? undefined : text;
    }
    case "b":
      return value === 0n && !keepZero ? undefined : value !== 0n;
    case "i": {
      const number = Number(BigInt.asIntN(64, typeof value === "bigint" ? value : 0n));
      return number === 0 && !keepZero ? undefined : number;
    }
    case "y":
      return bufferOf(value).toString("base64");
    case "T":
    case "U":
      return decodeTime(bufferOf(value), type === "U");
    case "Q":
      return decodeQuantity(bufferOf(value));
    case "I":
      return decodeIntOrString(bufferOf(value), keepZero);
    case "m":
    case "M":
    case "R":
      return undefined;
    default:
      return decodeMessage(bufferOf(value), type, depth + 1);
  }
}

function mapEntry(bytes: Buffer, type: string): [string, Json] {
  let key = "";
  let item: Json = "";
  for (const { number, value } of fieldsOf(bytes)) {
    if (number === 1) key = bufferOf(value).toString("utf8");
    else if (number === 2) item = type === "R" ? decodeQuantity(bufferOf(value)) : bufferOf(value).toString(type === "M" ? "base64" : "utf8");
  }
  return [key, item];
}

function decodeTime(bytes: Buffer, micro: boolean): string | undefined {
  let seconds = 0n;
  let nanos = 0n;
  for (const { number, value } of fieldsOf(bytes)) {
    if (typeof value !== "bigint") continue;
    if (number === 1) seconds = BigInt.asIntN(64, value);
    else if (number === 2) nanos = value;
  }
  const ms = Number(seconds) * 1000;
  if ((seconds === 0n && nanos === 0n) || Math.abs(ms) > 8.64e15) return undefined;
  const text = new Date(ms).toISOString().slice(0, 19);
  return micro
    ? `${text}.${String(nanos / 1000n)
        .padStart(6, "0")
        .slice(0, 6)}Z`
    : `${text}Z`;
}

function decodeQuantity(bytes: Buffer): string {
  for (const { number, value } of fieldsOf(bytes)) if (number === 1) return bufferOf(value).toString("utf8");
  return "0";
}

function decodeIntOrString(bytes: Buffer, keepZero: boolean): Json | undefined {
  let text = false;
  let number = 0;
  let string = "";
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) text = field.value === 1n;
    else if (field.number === 2 && typeof field.value === "bigint") number = Number(BigInt.asIntN(32, field.value));
    else if (field.number === 3) string = bufferOf(field.value).toString("utf8");
  }
  if (text) return string;
  return number === 0 && !keepZero ? undefined : number;
}

function bufferOf(value: Wire): Buffer {
  if (Buffer.isBuffer(value)) return value;
  throw malformed();
}

/** The fields of one message: varints as bigint, everything of a length as bytes. */
function* fieldsOf(bytes: Buffer): Generator<{ number: number; value: Wire }> {
  let at = 0;
  const varint = (): bigint => {
    let result = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[at];
      if (byte === undefined) throw malformed();
      at += 1;
      result |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, result);
    }
    throw malformed();
  };
  while (at < bytes.length) {
    const tag = varint();
    const number = Number(tag >> 3n);
    switch (tag & 7n) {
      case 0n:
        yield { number, value: varint() };
        break;
      case 2n: {
        const length = varint();
        if (length > BigInt(bytes.length - at)) throw malformed();
        yield { number, value: bytes.subarray(at, at + Number(length)) };
        at += Number(length);
        break;
      }
      default:
        // Kubernetes' own types have no fixed-width fields.
        throw malformed();
    }
  }
}

function malformed(): ApiError {
  return ApiError.badRequest("the body of the request is not a well-formed protobuf message");
}
