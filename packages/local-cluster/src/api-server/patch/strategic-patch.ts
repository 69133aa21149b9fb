/**
 * Strategic merge patch for the built-in types: lists merge by key, and `$patch`, `$retainKeys`, `$setElementOrder/…`
 * and `$deleteFromPrimitiveList/…` direct the merge, as kubectl writes them.
 */
import { ApiError } from "../api-error.ts";
import { cloneJson, isObject, type Json, type JsonObject, own, sameJson } from "../json.ts";
import type { MergeSchema } from "../merge-schema.ts";

const orderPrefix = "$setElementOrder/";
const deletePrefix = "$deleteFromPrimitiveList/";

/** The object with the patch merged in; neither argument is changed. Throws a 400 for a malformed patch. */
export function strategicPatch(target: JsonObject, patch: Json, schema: MergeSchema): JsonObject {
  if (!isObject(patch)) throw ApiError.badRequest("a strategic merge patch must be an object");
  return mergeObject(target, patch, schema);
}

function mergeObject(target: JsonObject, patch: JsonObject, schema: MergeSchema): JsonObject {
  switch (patch["$patch"]) {
    case undefined:
    case "merge":
      break;
    case "replace":
      return cloneJson(withoutDirectives(patch));
    case "delete":
      return {};
    default:
      throw ApiError.badRequest("$patch must be merge, replace or delete");
  }
  const result: JsonObject = { ...target };
  const retain = patch["$retainKeys"];
  if (Array.isArray(retain)) for (const key of Object.keys(result)) if (!retain.includes(key)) delete result[key];
  for (const [key, value] of Object.entries(patch)) {
    if (key === "$patch" || key === "$retainKeys" || key.startsWith(orderPrefix) || value === undefined) continue;
    if (key.startsWith(deletePrefix)) {
      const name = key.slice(deletePrefix.length);
      const current = own(result, name);
      if (!Array.isArray(value)) throw ApiError.badRequest(`${deletePrefix} needs a list`);
      if (Array.isArray(current)) result[name] = current.filter((item) => !value.some((gone) => sameJson(gone, item)));
    } else if (value === null) {
      delete result[key];
    } else if (Array.isArray(value)) {
      result[key] = mergeList(own(result, key), value, patch[`${orderPrefix}${key}`], schema.member(key), key);
    } else if (isObject(value)) {
      if (value["$patch"] === "delete") delete result[key];
      else {
        const current = own(result, key);
        result[key] = mergeObject(isObject(current) ? current : {}, value, schema.member(key));
      }
    } else {
      result[key] = value;
    }
  }
  for (const [key, order] of Object.entries(patch)) {
    const name = key.slice(orderPrefix.length);
    if (!key.startsWith(orderPrefix) || patch[name] !== undefined) continue;
    const current = own(result, name);
    if (Array.isArray(current)) result[name] = ordered(current, order, schema.member(name).list, current);
  }
  return result;
}

function mergeList(target: Json | undefined, patch: Json[], order: Json | undefined, schema: MergeSchema, field: string): Json[] {
  const current = Array.isArray(target) ? target : [];
  if (patch.some((item) => isObject(item) && item["$patch"] === "replace")) {
    return patch.filter((item) => !(isObject(item) && item["$patch"] === "replace")).map((item) => cloneJson(item));
  }
  if (schema.list === "atomic") return patch.map((item) => cloneJson(item));
  if (schema.list === "set") {
    const added = patch.filter((item) => !current.some((existing) => sameJson(existing, item)));
    return ordered([...current, ...cloneJson(added)], order, schema.list, current);
  }
  const mergeKey = schema.list[0] ?? "name";
  let result: Json[] = [...current];
  for (const item of patch) {
    if (!isObject(item)) throw ApiError.badRequest(`the items of ${field} must be objects`);
    const key = item[mergeKey];
    if (key === undefined || key === null) throw ApiError.badRequest(`map: ${field} does not contain declared merge key: ${mergeKey}`);
    const matches = (existing: Json): boolean => isObject(existing) && sameJson(existing[mergeKey], key);
    if (item["$patch"] === "delete") {
      result = result.filter((existing) => !matches(existing));
      continue;
    }
    const index = result.findIndex(matches);
    const existing = result[index];
    const merged = mergeObject(isObject(existing) ? existing : {}, item, schema.item());
    if (index < 0) result.push(merged);
    else result[index] = merged;
  }
  return ordered(result, order, schema.list, current);
}

/** Items named by the order stand in it; those only the server has stay before the items they stood before. */
function ordered(items: Json[], order: Json | undefined, list: MergeSchema["list"], original: readonly Json[]): Json[] {
  if (!Array.isArray(order)) return items;
  const mergeKey = typeof list === "string" ? undefined : list[0];
  const identity = (item: Json | undefined): string => JSON.stringify(mergeKey !== undefined && isObject(item) ? (item[mergeKey] ?? null) : (item ?? null));
  const rank = new Map(order.map((item, index) => [identity(item), index]));
  const place = new Map(original.map((item, index) => [identity(item), index]));
  const named = items.filter((item) => rank.has(identity(item))).sort((left, right) => (rank.get(identity(left)) ?? 0) - (rank.get(identity(right)) ?? 0));
  const result: Json[] = [...named];
  for (const item of items.filter((candidate) => !rank.has(identity(candidate)))) {
    const at = place.get(identity(item)) ?? Number.MAX_SAFE_INTEGER;
    const before = result.findIndex((other) => (place.get(identity(other)) ?? -1) > at);
    result.splice(before < 0 ? result.length : before, 0, item);
  }
  return result;
}

function withoutDirectives(patch: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(patch).filter(([key]) => !key.startsWith("$")));
}
