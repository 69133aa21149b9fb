/** What every stored object has: apiVersion, kind and metadata. */
import { ApiError } from "./api-error.ts";
import { isObject, type JsonObject, own } from "./json.ts";

export interface OwnerReference extends JsonObject {
  apiVersion: string;
  kind: string;
  name: string;
  uid: string;
  controller?: boolean;
  blockOwnerDeletion?: boolean;
}

export interface ObjectMeta extends JsonObject {
  name: string;
  generateName?: string;
  namespace?: string;
  uid: string;
  resourceVersion: string;
  generation?: number;
  creationTimestamp: string;
  deletionTimestamp?: string;
  deletionGracePeriodSeconds?: number;
  labels?: { [key: string]: string };
  annotations?: { [key: string]: string };
  finalizers?: string[];
  ownerReferences?: OwnerReference[];
  managedFields?: JsonObject[];
}

export interface KubeObject extends JsonObject {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
}

/**
 * Checks the shape of `metadata` so that everything behind may trust its types, and fills in what only the
 * server sets later. Throws a 400 in the words of the reference's decoder.
 */
export function parseObject(body: unknown, expected: { readonly apiVersion: string; readonly kind: string }): KubeObject {
  if (!isObject(body)) throw ApiError.badRequest("the object provided is unrecognized (must be an object with apiVersion and kind)");
  const apiVersion = body["apiVersion"] ?? expected.apiVersion;
  const kind = body["kind"] ?? expected.kind;
  if (typeof apiVersion !== "string" || typeof kind !== "string") throw ApiError.badRequest("apiVersion and kind must be strings");
  if (apiVersion !== expected.apiVersion) {
    throw ApiError.badRequest(`the API version in the data (${apiVersion.slice(0, 128)}) does not match the expected API version (${expected.apiVersion})`);
  }
  if (kind !== expected.kind) {
    throw ApiError.badRequest(`the kind in the data (${kind.slice(0, 128)}) does not match the expected kind (${expected.kind})`);
  }
  const { apiVersion: _version, kind: _kind, metadata, ...rest } = body;
  return { apiVersion, kind, metadata: parseMeta(metadata ?? {}, kind), ...rest };
}

function parseMeta(value: unknown, kind: string): ObjectMeta {
  const fail = (field: string, type: string): ApiError =>
    ApiError.badRequest(`${kind} in version "v1" cannot be handled as a ${kind}: json: cannot unmarshal metadata.${field} into ${type}`);
  if (!isObject(value)) throw fail("", "an object");
  const meta: JsonObject = {};
  for (const [key, field] of Object.entries(value)) {
    if (field === null || field === undefined) continue;
    const type = own(metaTypes, key);
    if (type !== undefined && !metaChecks[type](field)) throw fail(key, type);
    meta[key] = field;
  }
  return {
    ...meta,
    name: text(meta["name"]),
    uid: text(meta["uid"]),
    resourceVersion: text(meta["resourceVersion"]),
    creationTimestamp: text(meta["creationTimestamp"]),
  };
}

const text = (value: unknown): string => (typeof value === "string" ? value : "");

const metaChecks = {
  "a string": (value: unknown) => typeof value === "string",
  "an integer": (value: unknown) => Number.isSafeInteger(value),
  "a map of strings": (value: unknown) => isObject(value) && Object.values(value).every((item) => typeof item === "string"),
  "a list of strings": (value: unknown) => Array.isArray(value) && value.every((item) => typeof item === "string"),
  "a list of objects": (value: unknown) => Array.isArray(value) && value.every(isObject),
  "a list of owner references": (value: unknown) =>
    Array.isArray(value) && value.every((item) => isObject(item) && ["apiVersion", "kind", "name", "uid"].every((key) => typeof item[key] === "string")),
} as const;

const metaTypes: Readonly<Record<string, keyof typeof metaChecks>> = {
  name: "a string",
  generateName: "a string",
  namespace: "a string",
  uid: "a string",
  selfLink: "a string",
  resourceVersion: "a string",
  generation: "an integer",
  creationTimestamp: "a string",
  deletionTimestamp: "a string",
  deletionGracePeriodSeconds: "an integer",
  labels: "a map of strings",
  annotations: "a map of strings",
  finalizers: "a list of strings",
  ownerReferences: "a list of owner references",
  managedFields: "a list of objects",
};

/** The fields that `metadata` may hold, for strict field validation. */
export const metadataFields: ReadonlySet<string> = new Set(Object.keys(metaTypes));
