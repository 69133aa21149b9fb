/** Checks a built-in object against its shape: wrong types are a 400 as from the reference's decoder, unknown fields are listed. */
import { ApiError, shown } from "./api-error.ts";
import { isObject, type Json, type JsonObject } from "./json.ts";
import { metadataFields } from "./kube-object.ts";
import { type FieldShape, fieldsOf, type ScalarType } from "./shapes.ts";

const scalarChecks: Readonly<Record<ScalarType, readonly [name: string, check: (value: Json) => boolean]>> = {
  s: ["string", (value) => typeof value === "string"],
  i: ["int64", (value) => typeof value === "number" && Number.isSafeInteger(value)],
  b: ["bool", (value) => typeof value === "boolean"],
  m: ["map[string]string", (value) => isObject(value) && Object.values(value).every((item) => typeof item === "string" || item === null)],
  q: ["intstr.IntOrString", (value) => typeof value === "string" || (typeof value === "number" && Number.isSafeInteger(value))],
};

/** Paths of fields the shape does not know. Drops nulls, which the reference's decoder takes for absent. Throws a 400 on a wrong type. */
export function checkShape(object: JsonObject, kind: string): readonly string[] {
  const unknown: string[] = [];
  for (const key of Object.keys(object)) if (object[key] === null) delete object[key];
  const metadata = object["metadata"];
  if (isObject(metadata)) for (const key of Object.keys(metadata)) if (!metadataFields.has(key)) unknown.push(`metadata.${key}`);
  const { apiVersion: _version, kind: _kind, metadata: _metadata, ...rest } = object;
  const fields = fieldsOf(kind);
  if (fields !== undefined) checkFields(rest, fields, "", kind, unknown);
  return unknown;
}

function checkFields(value: JsonObject, fields: ReadonlyMap<string, FieldShape>, path: string, kind: string, unknown: string[]): void {
  for (const [key, child] of Object.entries(value)) {
    const at = path === "" ? key : `${path}.${key}`;
    const field = fields.get(key);
    if (field === undefined) {
      // The metadata of a template carries whatever metadata may carry.
      if (!(metadataFields.has(key) && fields === fieldsOf("ObjectMeta"))) unknown.push(at);
    } else if (child === null) delete value[key];
    else if (child !== undefined) checkField(child, field, at, kind, unknown);
  }
}

function checkField(value: Json, field: FieldShape, path: string, kind: string, unknown: string[]): void {
  if (field.list === undefined) {
    checkItem(value, field, path, kind, unknown);
    return;
  }
  if (!Array.isArray(value)) throw mismatch(kind, path, value, "a list");
  for (const [index, item] of value.entries()) checkItem(item, field, `${path}[${index}]`, kind, unknown);
}

function checkItem(value: Json, field: FieldShape, path: string, kind: string, unknown: string[]): void {
  if (field.shape !== undefined) {
    if (!isObject(value)) throw mismatch(kind, path, value, field.shape);
    checkFields(value, fieldsOf(field.shape) ?? new Map(), path, kind, unknown);
  } else if (field.scalar !== undefined) {
    const [name, check] = scalarChecks[field.scalar];
    if (!check(value)) throw mismatch(kind, path, value, name);
  }
}

function mismatch(kind: string, path: string, value: Json, expected: string): ApiError {
  const got = Array.isArray(value) ? "array" : value === null ? "null" : typeof value;
  return ApiError.badRequest(
    `${kind} cannot be handled as a ${kind}: json: cannot unmarshal ${got} into Go struct field ${kind}.${path} of type ${expected} (got ${shown(value)})`,
  );
}
