/** JSON patch (RFC 6902) over JSON pointers (RFC 6901). */
import { ApiError, shown } from "../api-error.ts";
import { cloneJson, isObject, type Json, sameJson } from "../json.ts";

/** As in the reference; more is a mistake or an attack. */
export const maxJsonPatchOperations = 10_000;
/** `copy` can double a document with each operation; this bounds what all copies of one patch may add. */
export const maxJsonPatchCopyBytes: number = 3 * 1024 * 1024;

/** Applies every operation or throws: 400 for a malformed patch, 422 for one that does not fit the document. */
export function jsonPatch(document: Json, operations: Json): Json {
  if (!Array.isArray(operations)) throw ApiError.badRequest("a JSON patch must be a list of operations");
  if (operations.length > maxJsonPatchOperations) {
    throw new ApiError(413, "RequestEntityTooLarge", `the allowed maximum operations in a JSON patch is ${maxJsonPatchOperations}, got ${operations.length}`);
  }
  let result = cloneJson(document);
  let copied = 0;
  for (const operation of operations) {
    if (!isObject(operation) || typeof operation["op"] !== "string" || typeof operation["path"] !== "string") {
      throw ApiError.badRequest("each operation of a JSON patch needs op and path");
    }
    const path = pointer(operation["path"]);
    const value = operation["value"];
    switch (operation["op"]) {
      case "add":
        result = add(result, path, needed(value, operation["op"]));
        break;
      case "replace":
        read(result, path);
        result = add(remove(result, path), path, needed(value, operation["op"]));
        break;
      case "remove":
        result = remove(result, path);
        break;
      case "test":
        if (!sameJson(read(result, path, true), value ?? null)) throw unfit(`testing value ${operation["path"]} failed`);
        break;
      case "move":
      case "copy": {
        if (typeof operation["from"] !== "string") throw ApiError.badRequest(`${operation["op"]} needs from`);
        const from = pointer(operation["from"]);
        const moved = cloneJson(read(result, from));
        if (operation["op"] === "move") {
          if (path.length > from.length && from.every((step, index) => step === path[index])) throw unfit("a value cannot move into itself");
          result = remove(result, from);
        } else {
          copied += JSON.stringify(moved).length;
          if (copied > maxJsonPatchCopyBytes) throw ApiError.tooLarge(maxJsonPatchCopyBytes);
        }
        result = add(result, path, moved);
        break;
      }
      default:
        throw ApiError.badRequest(`unknown JSON patch operation ${shown(operation["op"])}`);
    }
  }
  return result;
}

function pointer(text: string): readonly string[] {
  if (text === "") return [];
  if (!text.startsWith("/")) throw ApiError.badRequest(`${shown(text)} is not a JSON pointer`);
  const steps = text
    .slice(1)
    .split("/")
    .map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
  if (steps.includes("__proto__")) throw ApiError.badRequest(`${shown(text)} is not allowed`);
  return steps;
}

function read(document: Json, path: readonly string[], orNull = false): Json {
  let current: Json | undefined = document;
  for (const step of path) {
    if (Array.isArray(current)) current = current[indexOf(step, current.length - 1)];
    else current = isObject(current) && Object.hasOwn(current, step) ? current[step] : undefined;
    if (current === undefined) break;
  }
  if (current !== undefined) return current;
  if (orNull) return null;
  throw unfit(`the path ${shown(path.join("/"))} does not exist`);
}

function add(document: Json, path: readonly string[], value: Json): Json {
  const last = path.at(-1);
  if (last === undefined) return cloneJson(value);
  const parent = read(document, path.slice(0, -1));
  if (Array.isArray(parent)) parent.splice(last === "-" ? parent.length : indexOf(last, parent.length), 0, cloneJson(value));
  else if (isObject(parent)) parent[last] = cloneJson(value);
  else throw unfit(`the parent of ${shown(path.join("/"))} is not an object or a list`);
  return document;
}

function remove(document: Json, path: readonly string[]): Json {
  const last = path.at(-1);
  if (last === undefined) return null;
  read(document, path);
  const parent = read(document, path.slice(0, -1));
  if (Array.isArray(parent)) parent.splice(indexOf(last, parent.length - 1), 1);
  else if (isObject(parent)) delete parent[last];
  return document;
}

function indexOf(step: string, highest: number): number {
  if (!/^(0|[1-9]\d{0,8})$/.test(step) || Number(step) > highest) throw unfit(`${shown(step)} is not an index of the list`);
  return Number(step);
}

function needed(value: Json | undefined, operation: string): Json {
  if (value === undefined) throw ApiError.badRequest(`${operation} needs value`);
  return value;
}

function unfit(why: string): ApiError {
  return new ApiError(422, "Invalid", `the server rejected our request due to an error in our request: ${why}`);
}
