/** JSON merge patch (RFC 7386). */
import { cloneJson, isObject, type Json, type JsonObject, own } from "../json.ts";

/** The target with the patch merged in; neither argument is changed. */
export function mergePatch(target: Json | undefined, patch: Json): Json {
  if (!isObject(patch)) return cloneJson(patch);
  const result: JsonObject = isObject(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else if (value !== undefined) result[key] = mergePatch(own(result, key), value);
  }
  return result;
}
