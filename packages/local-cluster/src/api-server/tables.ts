/** The `Table` form of objects and lists, which kubectl prints. */

import type { Json, JsonObject } from "./json.ts";
import { type JsonPathValue, readJsonPath } from "./json-path.ts";
import type { KubeObject } from "./kube-object.ts";
import type { PrinterColumn, ResourceType } from "./resource-types.ts";
import { age, type Column, columnsOf, nameColumn } from "./table-columns.ts";

export type IncludedObject = "None" | "Metadata" | "Object";

export interface TableOptions {
  readonly nowMs: number;
  readonly include: IncludedObject;
  /** Watches leave the column definitions out after the first event. */
  readonly headers: boolean;
}

export function tableFrom(type: ResourceType, objects: readonly KubeObject[], metadata: JsonObject, { nowMs, include, headers }: TableOptions): JsonObject {
  const columns = type.custom === undefined ? columnsOf(type.table) : [nameColumn, ...type.custom.columns.map(customColumn)];
  return {
    kind: "Table",
    apiVersion: "meta.k8s.io/v1",
    metadata,
    columnDefinitions: headers
      ? columns.map(({ name, type: columnType, format, priority }) => ({ name, type: columnType, format: format ?? "", description: name, priority }))
      : [],
    rows: objects.map((object) => ({ cells: columns.map((column) => column.cell(object, nowMs)), object: included(object, include) })),
  };
}

function included(object: KubeObject, include: IncludedObject): JsonObject {
  if (include === "Object") return object;
  if (include === "None") return {};
  return { kind: "PartialObjectMetadata", apiVersion: "meta.k8s.io/v1", metadata: object.metadata };
}

/** The metadata-only form of an object. */
export function metadataOnly(object: KubeObject): JsonObject {
  return included(object, "Metadata");
}

function customColumn(column: PrinterColumn): Column {
  const type = column.type === "integer" || column.type === "boolean" || column.type === "number" ? column.type : "string";
  return {
    name: column.name,
    type,
    priority: column.priority > 0 ? 1 : 0,
    cell: (object, nowMs) => customCell(readJsonPath(object, column.jsonPath), column.type, nowMs),
  };
}

function customCell(values: readonly JsonPathValue[], type: string, nowMs: number): Json {
  const first = values[0];
  if (first === undefined || first === null) return type === "date" ? "<unknown>" : "";
  if (type === "date") return typeof first === "string" ? age(first, nowMs) : "<unknown>";
  if (type === "integer" || type === "number") return typeof first === "number" ? first : "";
  if (type === "boolean") return typeof first === "boolean" ? first : "";
  return values.map((value) => (typeof value === "object" ? JSON.stringify(value) : String(value))).join(",");
}
