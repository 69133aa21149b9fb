/** One view of how values merge, whether the type is built in (shapes) or custom (an OpenAPI schema). */
import { listKindOf, propertySchema } from "./custom-schema.ts";
import { isObject, type Json, type JsonObject } from "./json.ts";
import type { ResourceType } from "./resource-types.ts";
import { type FieldShape, fieldsOf, type ListKind } from "./shapes.ts";

export interface MergeSchema {
  /** How the member `key` of an object merges. */
  member(key: string): MergeSchema;
  /** How the items of a list merge. */
  item(): MergeSchema;
  /** How a list at this place merges. */
  readonly list: ListKind;
  /** An object at this place is owned and replaced as a whole. */
  readonly atomic: boolean;
}

const openSchema: MergeSchema = { member: () => openSchema, item: () => openSchema, list: "atomic", atomic: false };

/** The schema of whole objects of the type. */
export function mergeSchemaOf(type: ResourceType): MergeSchema {
  const root =
    type.custom === undefined
      ? shapeSchema({ ...(type.shape === undefined ? {} : { shape: type.shape }), atomic: false })
      : openApiSchema(type.custom.schema.root);
  const metadata = shapeSchema({ shape: "ObjectMeta", atomic: false });
  return { ...root, member: (key) => (key === "metadata" ? metadata : root.member(key)) };
}

function shapeSchema(field: FieldShape): MergeSchema {
  return {
    list: field.list ?? "atomic",
    atomic: field.atomic,
    member: (key) => {
      const found = fieldsOf(field.shape)?.get(key);
      return found === undefined ? openSchema : shapeSchema(found);
    },
    item: () => shapeSchema({ ...(field.shape === undefined ? {} : { shape: field.shape }), atomic: false }),
  };
}

function openApiSchema(schema: JsonObject | undefined): MergeSchema {
  if (schema === undefined) return openSchema;
  return {
    list: listKindOf(schema),
    atomic: schema["x-kubernetes-map-type"] === "atomic",
    member: (key) => openApiSchema(propertySchema(schema, key)),
    item: () => openApiSchema(isObject(schema["items"]) ? schema["items"] : undefined),
  };
}

/** The identity of an item in a list merged by keys, as canonical JSON; absent when a key is missing. */
export function itemKey(item: Json | undefined, keys: readonly string[]): string | undefined {
  if (!isObject(item)) return undefined;
  const found: JsonObject = {};
  for (const key of [...keys].sort()) {
    // `protocol` is the one defaulted key among the built-in lists.
    const value = item[key] ?? (key === "protocol" ? "TCP" : undefined);
    if (value === undefined) return undefined;
    found[key] = value;
  }
  return JSON.stringify(found);
}
