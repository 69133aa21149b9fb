/** Server-side apply: merges a manager's wishes, refuses conflicts, and removes what it no longer wishes. */
import { ApiError, type StatusCause } from "../api-error.ts";
import { commonPaths, difference, emptyFields, type FieldSet, fieldChanges, fieldsIn, isEmptySet, parts } from "../field-set.ts";
import { cloneJson, isObject, type Json, type JsonObject, sameJson } from "../json.ts";
import { type Manager, type ManagerEntry, ownedPart, sameManager } from "../managed-fields.ts";
import { itemKey, type MergeSchema } from "../merge-schema.ts";

export interface ApplyRequest {
  /** The live object, absent when the apply creates it. */
  readonly live: JsonObject | undefined;
  /** What the manager wishes, with apiVersion, kind and metadata. */
  readonly wished: JsonObject;
  readonly managers: readonly ManagerEntry[];
  readonly manager: Manager;
  readonly force: boolean;
  /** What the live object's client-side apply set: `kubectl`, and only it, may take that over without force. */
  readonly lastApplied?: JsonObject | undefined;
  readonly schema: MergeSchema;
  readonly time: string;
}

export interface Applied {
  readonly object: JsonObject;
  readonly managers: readonly ManagerEntry[];
}

/** Throws a 409 that names each conflicting manager and field, unless forced. */
export function applyFields({ live, wished, managers, manager, force, lastApplied, schema, time }: ApplyRequest): Applied {
  const wishes = ownedPart(wished);
  const mine = managers.find((entry) => sameManager(entry, manager));
  const wishedFields = fieldsIn(wishes, schema);
  const merged = mergeValue(live ?? {}, wished, schema);
  if (!isObject(merged)) throw ApiError.badRequest("an applied configuration must be an object");
  const { changed } = fieldChanges(ownedPart(live), ownedPart(merged), schema);
  let others = managers.filter((entry) => entry !== mine);
  const contested = others.some((entry) => commonPaths(changed, entry.fields).length > 0);
  if (contested) {
    const disputed = difference(changed, takenOver(live, lastApplied, schema));
    const conflicts = others.flatMap((entry) => commonPaths(disputed, entry.fields).map((path) => ({ entry, path })));
    if (!force && conflicts.length > 0) throw conflictError(conflicts);
    others = others.map((entry) => ({ ...entry, fields: difference(entry.fields, changed) })).filter((entry) => !isEmptySet(entry.fields));
  }
  let object = merged;
  if (mine !== undefined) {
    const dropped = withoutKept(mine.fields, wishedFields);
    if (!isEmptySet(dropped)) {
      const kept = removeFields(merged, dropped, [wishedFields, ...others.map((entry) => entry.fields)], schema);
      object = isObject(kept) ? kept : {};
    }
  }
  const unchanged = mine !== undefined && sameJson(ownedPart(live), ownedPart(object)) && isEmptySet(withoutKept(wishedFields, mine.fields));
  const entry: ManagerEntry = { ...manager, time: unchanged ? mine.time : time, fields: wishedFields };
  return { object, managers: isEmptySet(wishedFields) ? others : [...others, entry] };
}

/** The fields of the last client-side apply that still have the value it gave them. */
function takenOver(live: JsonObject | undefined, lastApplied: JsonObject | undefined, schema: MergeSchema): FieldSet {
  if (lastApplied === undefined) return emptyFields;
  const { changed } = fieldChanges(ownedPart(live), ownedPart(lastApplied), schema);
  return withoutKept(fieldsIn(ownedPart(lastApplied), schema), changed);
}

function conflictError(conflicts: readonly { readonly entry: ManagerEntry; readonly path: string }[]): ApiError {
  const who = ({ name, subresource, apiVersion }: ManagerEntry): string =>
    `conflict with ${JSON.stringify(name)}${subresource === "" ? "" : ` with subresource ${JSON.stringify(subresource)}`} using ${apiVersion}`;
  const causes: StatusCause[] = conflicts.map(({ entry, path }) => ({ reason: "FieldManagerConflict", message: who(entry), field: path }));
  const lines = conflicts.map(({ entry, path }) => `${who(entry)}: ${path}`);
  const many = conflicts.length === 1 ? `1 conflict: ${lines.join("")}` : `${conflicts.length} conflicts:\n- ${lines.join("\n- ")}`;
  return new ApiError(409, "Conflict", `Apply failed with ${many}`, { causes });
}

/** What `left` holds and `right` does not, exactly: a leaf of `right` does not reach below itself. */
function withoutKept(left: FieldSet, right: FieldSet): FieldSet {
  const children = new Map<string, FieldSet>();
  for (const [key, child] of left.children) {
    const rest = withoutKept(child, right.children.get(key) ?? emptyFields);
    if (!isEmptySet(rest)) children.set(key, rest);
  }
  return { self: left.self && !right.self && right.children.size === 0, children };
}

function mergeValue(live: Json | undefined, wished: Json, schema: MergeSchema): Json {
  if (isObject(wished)) {
    if (schema.atomic || !isObject(live)) return cloneJson(wished);
    const result: JsonObject = { ...live };
    for (const [key, value] of Object.entries(wished)) if (value !== undefined) result[key] = mergeValue(live[key], value, schema.member(key));
    return result;
  }
  if (!Array.isArray(wished) || !Array.isArray(live) || schema.list === "atomic") return cloneJson(wished);
  if (schema.list === "set") return [...live, ...wished.filter((item) => !live.some((other) => sameJson(other, item)))];
  const { list } = schema;
  const wishedByKey = new Map(wished.map((item) => [itemKey(item, list), item]));
  if (wishedByKey.has(undefined)) throw ApiError.badRequest(`an item of a list lacks one of its keys: ${list.join(", ")}`);
  // Items of the manager come in its order; those of others keep theirs, after.
  const liveByKey = new Map(live.map((item) => [itemKey(item, list), item]));
  const result = [...wishedByKey].map(([key, item]) => mergeValue(liveByKey.get(key), item, schema.item()));
  return [...result, ...live.filter((item) => !wishedByKey.has(itemKey(item, list)))];
}

/** Removes the dropped fields that nobody else holds; containers left empty by it go too. */
function removeFields(value: Json | undefined, dropped: FieldSet, holders: readonly FieldSet[], schema: MergeSchema): Json | undefined {
  const held = holders.some((holder) => !isEmptySet(holder));
  if (dropped.self && !held) return undefined;
  const items = parts(value, schema);
  if (items === undefined || dropped.children.size === 0) return value;
  const kept = items.flatMap(([key, child, childSchema]): [string, Json][] => {
    const drop = dropped.children.get(key);
    const below = holders.flatMap((holder) => holder.children.get(key) ?? []);
    const rest = drop === undefined ? child : removeFields(child, drop, below, childSchema);
    return rest === undefined ? [] : [[key, rest]];
  });
  if (kept.length === 0 && items.length > 0 && !held) return undefined;
  if (Array.isArray(value)) return kept.map(([, child]) => child);
  return Object.fromEntries(kept.map(([key, child]) => [key.slice(2), child]));
}
