/**
 * Sets of field paths, and their `fieldsV1` form in managedFields: `f:<name>` a member, `k:<keys>` an item of a keyed list,
 * `v:<value>` an item of a set, `.` the place itself.
 */
import { isObject, type Json, type JsonObject, own, sameJson } from "./json.ts";
import { itemKey, type MergeSchema } from "./merge-schema.ts";

export interface FieldSet {
  /** The place itself is in the set. */
  readonly self: boolean;
  readonly children: ReadonlyMap<string, FieldSet>;
}

export const emptyFields: FieldSet = { self: false, children: new Map() };
const leaf: FieldSet = { self: true, children: new Map() };

export function isEmptySet(set: FieldSet): boolean {
  return !set.self && [...set.children.values()].every(isEmptySet);
}

/** Every field that the value sets. */
export function fieldsIn(value: Json | undefined, schema: MergeSchema, item = false): FieldSet {
  const children = new Map<string, FieldSet>();
  for (const [key, child, childSchema, isItem] of parts(value, schema) ?? []) children.set(key, fieldsIn(child, childSchema, isItem));
  return children.size === 0 ? leaf : { self: item, children };
}

export interface FieldChanges {
  /** Fields that are new or have another value, with everything below the new ones. */
  readonly changed: FieldSet;
  /** Fields that are gone; everything below them is too. */
  readonly removed: FieldSet;
}

/** What differs between two values. */
export function fieldChanges(before: Json | undefined, after: Json | undefined, schema: MergeSchema, item = false): FieldChanges {
  if (sameJson(before, after)) return { changed: emptyFields, removed: emptyFields };
  if (before === undefined) return { changed: fieldsIn(after, schema, item), removed: emptyFields };
  if (after === undefined) return { changed: emptyFields, removed: leaf };
  const old = parts(before, schema);
  const next = parts(after, schema);
  if (old === undefined || next === undefined) return { changed: fieldsIn(after, schema), removed: leaf };
  const changed = new Map<string, FieldSet>();
  const removed = new Map<string, FieldSet>();
  const oldByKey = new Map(old.map((part) => [part[0], part]));
  for (const [key, child, childSchema, isItem] of next) {
    const changes = fieldChanges(oldByKey.get(key)?.[1], child, childSchema, isItem);
    if (!isEmptySet(changes.changed)) changed.set(key, changes.changed);
    if (!isEmptySet(changes.removed)) removed.set(key, changes.removed);
    oldByKey.delete(key);
  }
  for (const key of oldByKey.keys()) removed.set(key, leaf);
  return { changed: { self: false, children: changed }, removed: { self: false, children: removed } };
}

type Part = readonly [key: string, value: Json | undefined, schema: MergeSchema, item: boolean];

/** The separately owned parts of a value, or nothing when it is owned as a whole. */
export function parts(value: Json | undefined, schema: MergeSchema): readonly Part[] | undefined {
  if (Array.isArray(value)) {
    const { list } = schema;
    if (list === "atomic") return undefined;
    if (list === "set") return value.map((item): Part => [`v:${JSON.stringify(item)}`, item, schema.item(), true]);
    const keyed = value.map((item): Part => [`k:${itemKey(item, list) ?? ""}`, item, schema.item(), true]);
    return keyed.some(([key]) => key === "k:") ? undefined : keyed;
  }
  if (!isObject(value) || schema.atomic) return undefined;
  return Object.entries(value)
    .filter(([, child]) => child !== undefined)
    .map(([key, child]): Part => [`f:${key}`, child, schema.member(key), false]);
}

export function union(left: FieldSet, right: FieldSet): FieldSet {
  const children = new Map(left.children);
  for (const [key, child] of right.children) {
    const existing = children.get(key);
    children.set(key, existing === undefined ? child : union(existing, child));
  }
  return { self: left.self || right.self, children };
}

/** What is in `left` and not in `right`; a leaf of `right` takes everything below it along. */
export function difference(left: FieldSet, right: FieldSet): FieldSet {
  if (right.self && right.children.size === 0) return emptyFields;
  const children = new Map<string, FieldSet>();
  for (const [key, child] of left.children) {
    const other = right.children.get(key);
    const rest = other === undefined ? child : difference(child, other);
    if (!isEmptySet(rest)) children.set(key, rest);
  }
  return { self: left.self && !right.self, children };
}

/** The paths that both sets hold, as `.spec.containers[name="a"].image`. */
export function commonPaths(left: FieldSet, right: FieldSet, path = ""): readonly string[] {
  const here = left.self && right.self ? [path] : [];
  const below = [...left.children].flatMap(([key, child]) => {
    const other = right.children.get(key);
    return other === undefined ? [] : commonPaths(child, other, path + readable(key));
  });
  return [...here, ...below];
}

export function fieldsToJson(set: FieldSet): JsonObject {
  const out: JsonObject = {};
  if (set.self && set.children.size > 0) out["."] = {};
  for (const [key, child] of [...set.children].sort(([left], [right]) => (left < right ? -1 : 1))) out[key] = fieldsToJson(child);
  return out;
}

export function fieldsFromJson(value: Json | undefined): FieldSet {
  if (!isObject(value)) return emptyFields;
  const keys = Object.keys(value).filter((key) => key !== ".");
  if (keys.length === 0) return leaf;
  return { self: own(value, ".") !== undefined, children: new Map(keys.map((key) => [key, fieldsFromJson(value[key])])) };
}

function readable(key: string): string {
  const text = key.slice(2);
  if (key.startsWith("f:")) return `.${text}`;
  if (key.startsWith("v:")) return `[=${text}]`;
  const keys: unknown = JSON.parse(text);
  const pairs = isObject(keys) ? Object.entries(keys).map(([name, value]) => `${name}=${JSON.stringify(value)}`) : [text];
  return `[${pairs.join(",")}]`;
}
