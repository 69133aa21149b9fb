/** The schema of one CRD version: defaulting, pruning, validation, and how its lists merge. */
import { Ajv, type ErrorObject, type ValidateFunction } from "ajv";
import { ApiError, type FieldError } from "./api-error.ts";
import { cloneJson, isObject, type Json, type JsonObject, own } from "./json.ts";
import type { KubeObject } from "./kube-object.ts";
import type { ListKind } from "./shapes.ts";

/** A schema in a CRD may not be larger than this when serialised. */
export const maxSchemaBytes = 1_048_576;

export class CustomSchema {
  readonly root: JsonObject;
  readonly #validate: ValidateFunction | undefined;

  /** Throws a 422-worthy message as an ApiError when the schema does not compile. */
  constructor(root: JsonObject) {
    this.root = root;
    if (JSON.stringify(root).length > maxSchemaBytes) throw ApiError.badRequest("the openAPIV3Schema is too large");
    try {
      this.#validate = Object.keys(root).length === 0 ? undefined : newAjv().compile(jsonSchema(root, true));
    } catch (thrown) {
      throw new ApiError(422, "Invalid", `the openAPIV3Schema does not compile: ${thrown instanceof Error ? thrown.message.slice(0, 500) : "unknown"}`);
    }
  }

  /** What the schema finds wrong, in the words of the reference. */
  errors(object: KubeObject): readonly FieldError[] {
    if (this.#validate === undefined || this.#validate(object)) return [];
    return (this.#validate.errors ?? []).slice(0, 20).map((error) => fieldError(error));
  }

  /** Fills in defaults. Changes `object`. */
  applyDefaults(object: KubeObject): void {
    applyDefaults(object, this.root);
  }

  /** Removes what the schema does not know and returns the removed paths. Changes `object`. */
  prune(object: KubeObject): readonly string[] {
    const removed: string[] = [];
    if (Object.keys(this.root).length > 0) prune(object, this.root, "", removed, true);
    return removed;
  }
}

/** The list kind a schema declares. */
export function listKindOf(schema: JsonObject): ListKind {
  const keys = schema["x-kubernetes-list-map-keys"];
  if (schema["x-kubernetes-list-type"] === "map" && Array.isArray(keys)) return keys.filter((key) => typeof key === "string");
  return schema["x-kubernetes-list-type"] === "set" ? "set" : "atomic";
}

export function propertySchema(schema: JsonObject | undefined, key: string): JsonObject | undefined {
  if (schema === undefined) return undefined;
  const properties = schema["properties"];
  const found = isObject(properties) ? own(properties, key) : undefined;
  if (isObject(found)) return found;
  return isObject(schema["additionalProperties"]) ? schema["additionalProperties"] : undefined;
}

function newAjv(): Ajv {
  const integerRange = (bits: number) => ({
    type: "number" as const,
    validate: (value: number) => Number.isInteger(value) && Math.abs(value) <= 2 ** (bits - 1),
  });
  return new Ajv({
    allErrors: true,
    ownProperties: true,
    unicodeRegExp: false,
    strict: false,
    validateSchema: false,
    logger: false,
    // Formats are annotations in Kubernetes except where it checks them; these are the ones our types use.
    formats: {
      int32: integerRange(32),
      int64: integerRange(64),
      "date-time": (text: string) => !Number.isNaN(Date.parse(text)),
      ipv4: /^(\d{1,3}\.){3}\d{1,3}$/,
      duration: /^([-+]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+$/,
    },
  });
}

const copiedKeywords = [
  "pattern",
  "minLength",
  "maxLength",
  "minimum",
  "maximum",
  "multipleOf",
  "minItems",
  "maxItems",
  "uniqueItems",
  "minProperties",
  "maxProperties",
  "required",
  "enum",
  "format",
] as const;

/** An OpenAPI v3 structural schema as JSON schema: `nullable`, exclusive bounds and int-or-string are spelled differently. */
function jsonSchema(schema: JsonObject, root = false): JsonObject {
  const out: JsonObject = {};
  for (const keyword of copiedKeywords) if (schema[keyword] !== undefined) out[keyword] = schema[keyword];
  const formats = new Set(["int32", "int64", "date-time", "ipv4", "duration"]);
  if (typeof out["format"] === "string" && !formats.has(out["format"])) delete out["format"];
  if (schema["exclusiveMinimum"] === true && typeof schema["minimum"] === "number") {
    delete out["minimum"];
    out["exclusiveMinimum"] = schema["minimum"];
  }
  if (schema["exclusiveMaximum"] === true && typeof schema["maximum"] === "number") {
    delete out["maximum"];
    out["exclusiveMaximum"] = schema["maximum"];
  }
  if (schema["x-kubernetes-int-or-string"] === true) out["type"] = ["integer", "string"];
  else if (typeof schema["type"] === "string") out["type"] = schema["type"];
  if (schema["nullable"] === true && typeof out["type"] === "string") out["type"] = [out["type"], "null"];
  const each = (key: string): void => {
    const list = schema[key];
    if (Array.isArray(list)) out[key] = list.filter(isObject).map((item) => jsonSchema(item));
  };
  for (const key of ["allOf", "anyOf", "oneOf"]) each(key);
  if (isObject(schema["not"])) out["not"] = jsonSchema(schema["not"]);
  if (isObject(schema["items"])) out["items"] = jsonSchema(schema["items"]);
  if (isObject(schema["additionalProperties"])) out["additionalProperties"] = jsonSchema(schema["additionalProperties"]);
  if (isObject(schema["properties"])) {
    const properties: JsonObject = {};
    for (const [key, child] of Object.entries(schema["properties"])) {
      // metadata, apiVersion and kind are the server's to validate.
      if (isObject(child) && !(root && ["metadata", "apiVersion", "kind"].includes(key))) properties[key] = jsonSchema(child);
    }
    out["properties"] = properties;
  }
  return out;
}

function fieldError(error: ErrorObject): FieldError {
  const path = error.instancePath
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
    .reduce((text, part) => (/^\d+$/.test(part) ? `${text}[${part}]` : text === "" ? part : `${text}.${part}`), "");
  const params = error.params as Readonly<Record<string, unknown>>;
  switch (error.keyword) {
    case "required": {
      const field = `${path === "" ? "" : `${path}.`}${String(params["missingProperty"])}`;
      return { kind: "FieldValueRequired", field, detail: "Required value" };
    }
    case "enum": {
      const allowed = Array.isArray(params["allowedValues"]) ? params["allowedValues"].map((value) => JSON.stringify(value)).join(", ") : "";
      return { kind: "FieldValueNotSupported", field: path, detail: `Unsupported value: supported values: ${allowed}` };
    }
    case "type":
      return { kind: "FieldValueTypeInvalid", field: path, detail: `Invalid value: ${path} in body must be of type ${String(params["type"])}` };
    default:
      return { kind: "FieldValueInvalid", field: path === "" ? "<nil>" : path, detail: `Invalid value: ${path} in body ${error.message ?? "is not valid"}` };
  }
}

function applyDefaults(value: Json | undefined, schema: JsonObject): void {
  if (Array.isArray(value)) {
    const items = schema["items"];
    if (isObject(items)) for (const item of value) applyDefaults(item, items);
    return;
  }
  if (!isObject(value)) return;
  const properties = isObject(schema["properties"]) ? schema["properties"] : {};
  for (const [key, child] of Object.entries(properties)) {
    if (!isObject(child)) continue;
    if (own(value, key) === undefined && child["default"] !== undefined) value[key] = cloneJson(child["default"]);
    if (value[key] !== undefined) applyDefaults(value[key], child);
  }
  const additional = schema["additionalProperties"];
  if (isObject(additional)) for (const [key, child] of Object.entries(value)) if (!Object.hasOwn(properties, key)) applyDefaults(child, additional);
}

function prune(value: Json | undefined, schema: JsonObject, path: string, removed: string[], root: boolean): void {
  if (Array.isArray(value)) {
    const items = schema["items"];
    if (isObject(items)) for (const [index, item] of value.entries()) prune(item, items, `${path}[${index}]`, removed, false);
    return;
  }
  if (!isObject(value)) return;
  const preserve = schema["x-kubernetes-preserve-unknown-fields"] === true || schema["additionalProperties"] === true;
  const embedded = root || schema["x-kubernetes-embedded-resource"] === true;
  for (const key of Object.keys(value)) {
    if (embedded && (key === "apiVersion" || key === "kind" || key === "metadata")) continue;
    const child = propertySchema(schema, key);
    const childPath = path === "" ? key : `${path}.${key}`;
    if (child !== undefined) prune(value[key], child, childPath, removed, false);
    else if (!preserve) {
      delete value[key];
      removed.push(childPath);
    }
  }
}
