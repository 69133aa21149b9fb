/** `metadata.managedFields`: which manager set which fields, kept current for every write. */
import { difference, type FieldSet, fieldChanges, fieldsFromJson, fieldsToJson, isEmptySet, union } from "./field-set.ts";
import { isObject, type Json, type JsonObject, sameJson } from "./json.ts";
import type { KubeObject } from "./kube-object.ts";
import type { MergeSchema } from "./merge-schema.ts";

export interface Manager {
  readonly name: string;
  readonly operation: "Apply" | "Update";
  readonly subresource: string;
  readonly apiVersion: string;
}

export interface ManagerEntry extends Manager {
  readonly time: string;
  readonly fields: FieldSet;
}

/** More update managers than this are folded into one, as in the reference. */
export const maxUpdateManagers = 10;
const foldedManager = "ancient-changes";

export function readManagers(managedFields: Json | undefined): readonly ManagerEntry[] {
  if (!Array.isArray(managedFields)) return [];
  return managedFields.filter(isObject).flatMap((entry): ManagerEntry[] => {
    const { manager, operation, subresource, apiVersion, time, fieldsV1 } = entry;
    if (typeof manager !== "string" || (operation !== "Apply" && operation !== "Update") || !isObject(fieldsV1)) return [];
    return [
      {
        name: manager,
        operation,
        subresource: typeof subresource === "string" ? subresource : "",
        apiVersion: typeof apiVersion === "string" ? apiVersion : "",
        time: typeof time === "string" ? time : "",
        fields: fieldsFromJson(fieldsV1),
      },
    ];
  });
}

export function writeManagers(entries: readonly ManagerEntry[]): JsonObject[] {
  return entries
    .filter((entry) => !isEmptySet(entry.fields))
    .map((entry) => ({
      manager: entry.name,
      operation: entry.operation,
      apiVersion: entry.apiVersion,
      ...(entry.time === "" ? {} : { time: entry.time }),
      fieldsType: "FieldsV1",
      fieldsV1: fieldsToJson(entry.fields),
      ...(entry.subresource === "" ? {} : { subresource: entry.subresource }),
    }));
}

export function sameManager(left: Manager, right: Manager): boolean {
  return left.name === right.name && left.operation === right.operation && left.subresource === right.subresource;
}

const unownedMetadata = new Set([
  "name",
  "namespace",
  "uid",
  "resourceVersion",
  "generation",
  "creationTimestamp",
  "deletionTimestamp",
  "deletionGracePeriodSeconds",
  "managedFields",
  "selfLink",
]);

/** The part of an object that managers own. */
export function ownedPart(object: JsonObject | undefined): JsonObject {
  if (object === undefined) return {};
  const { apiVersion: _version, kind: _kind, metadata, ...rest } = object;
  if (!isObject(metadata)) return rest;
  const kept = Object.fromEntries(Object.entries(metadata).filter(([key, value]) => !unownedMetadata.has(key) && value !== undefined));
  return Object.keys(kept).length === 0 ? rest : { metadata: kept, ...rest };
}

export interface UpdateTracking {
  readonly before: KubeObject | undefined;
  readonly after: KubeObject;
  readonly base: readonly ManagerEntry[];
  readonly manager: Manager;
  readonly schema: MergeSchema;
  readonly time: string;
}

/** The managers after a write that was not an apply: changed fields pass to the writer, removed ones to nobody. */
export function trackUpdate({ before, after, base, manager, schema, time }: UpdateTracking): readonly ManagerEntry[] {
  const { changed, removed } = fieldChanges(ownedPart(before), ownedPart(after), schema);
  if (isEmptySet(changed) && isEmptySet(removed)) return base;
  const others = base
    .filter((entry) => !sameManager(entry, manager))
    .map((entry) => ({ ...entry, fields: difference(difference(entry.fields, changed), removed) }))
    .filter((entry) => !isEmptySet(entry.fields));
  const mine = base.find((entry) => sameManager(entry, manager));
  const kept = mine === undefined ? undefined : difference(mine.fields, removed);
  const fields = kept === undefined ? changed : union(kept, changed);
  return folded(isEmptySet(fields) ? others : [...others, { ...manager, time, fields }]);
}

function folded(entries: readonly ManagerEntry[]): readonly ManagerEntry[] {
  const updates = entries.filter((entry) => entry.operation === "Update");
  if (updates.length <= maxUpdateManagers) return entries;
  const old = updates.slice(0, updates.length - maxUpdateManagers + 1);
  const first = old[0];
  if (first === undefined) return entries;
  const fold = { ...first, name: foldedManager, subresource: "", fields: old.map((entry) => entry.fields).reduce(union) };
  return [fold, ...entries.filter((entry) => !old.includes(entry))];
}

/** Whether a client's managedFields ask for a change: kubectl migrates client-side to server-side apply this way. */
export function managersAfterEdit(live: Json | undefined, edited: Json | undefined): readonly ManagerEntry[] {
  return edited === undefined || sameJson(live, edited) ? readManagers(live) : readManagers(edited);
}
