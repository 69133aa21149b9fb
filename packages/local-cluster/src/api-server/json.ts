/** JSON values as the API server holds them: plain, never mutated once stored, compared and copied by value. */
import { ApiError } from "./api-error.ts";

export type Json = null | boolean | number | string | Json[] | JsonObject;
export interface JsonObject {
  [key: string]: Json | undefined;
}

/** Deeper documents are refused before any recursive code sees them. */
export const maxJsonDepth = 128;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The object at `value`, or an empty one: for reading optional parts. */
export function objectAt(value: Json | undefined): JsonObject {
  return isObject(value) ? value : {};
}

export function arrayAt(value: Json | undefined): readonly Json[] {
  return Array.isArray(value) ? value : [];
}

export function stringAt(value: Json | undefined): string | undefined {
  return typeof value === "string" ? value : undefined;
}

export function numberAt(value: Json | undefined): number | undefined {
  return typeof value === "number" ? value : undefined;
}

/** A member of the object itself, never of its prototype: keys come from clients. */
export function own<T>(object: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

/** Reads `a.b.c`; numbers index lists. */
export function atPath(value: Json | undefined, ...path: readonly (string | number)[]): Json | undefined {
  let current = value;
  for (const step of path) {
    if (typeof step === "number") current = Array.isArray(current) ? current[step] : undefined;
    else current = isObject(current) && Object.hasOwn(current, step) ? current[step] : undefined;
  }
  return current;
}

export function cloneJson<T extends Json | undefined>(value: T): T;
export function cloneJson(value: Json | undefined): Json | undefined {
  if (Array.isArray(value)) return value.map((item) => cloneJson(item));
  if (!isObject(value)) return value;
  const copy: JsonObject = {};
  for (const key of Object.keys(value)) {
    const child = value[key];
    if (child !== undefined) copy[key] = cloneJson(child);
  }
  return copy;
}

/** Equality by value; an undefined member counts as absent. */
export function sameJson(left: Json | undefined, right: Json | undefined): boolean {
  if (left === right) return true;
  if (Array.isArray(left)) {
    return Array.isArray(right) && left.length === right.length && left.every((item, index) => sameJson(item, right[index]));
  }
  if (!isObject(left) || !isObject(right)) return false;
  for (const key of Object.keys(left)) if (!sameJson(left[key], Object.hasOwn(right, key) ? right[key] : undefined)) return false;
  for (const key of Object.keys(right)) if (right[key] !== undefined && left[key] === undefined) return false;
  return true;
}

/**
 * Checks a freshly parsed document: only JSON values, bounded depth, and no key that reaches a prototype.
 * Throws a 400; everything behind it may recurse and assign keys freely.
 */
export function checkJson(value: unknown, depth = 0): asserts value is Json {
  if (depth > maxJsonDepth) throw ApiError.badRequest(`the document is nested deeper than ${maxJsonDepth} levels`);
  switch (typeof value) {
    case "string":
    case "boolean":
      return;
    case "number":
      if (!Number.isFinite(value)) throw ApiError.badRequest("the document holds a number that JSON cannot carry");
      return;
    case "object":
      if (value === null) return;
      if (Array.isArray(value)) {
        for (const item of value) checkJson(item, depth + 1);
        return;
      }
      if (Object.getPrototypeOf(value) !== Object.prototype) break;
      for (const [key, child] of Object.entries(value)) {
        if (key === "__proto__") throw ApiError.badRequest('the document holds the key "__proto__"');
        checkJson(child, depth + 1);
      }
      return;
    default:
  }
  throw ApiError.badRequest("the document holds a value that JSON cannot carry");
}
