/** Label and field selectors: parsed once, then a predicate. Anything not understood is a 400, never a match. */
import { ApiError } from "./api-error.ts";
import { atPath, isObject, type Json, type JsonObject, own } from "./json.ts";
import type { KubeObject } from "./kube-object.ts";

export type ObjectPredicate = (object: KubeObject) => boolean;

type LabelTest = (labels: Readonly<Record<string, Json | undefined>>) => boolean;

const keyPattern = /^([a-z0-9]([-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/;
const valuePattern = /^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$/;
/** A selector longer than this is refused unread. */
const maxSelectorLength = 16_384;

/** Parses `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`. */
export function parseLabelSelector(text: string): ObjectPredicate {
  const tests = parseLabelTests(text);
  return (object) => {
    const labels = object.metadata.labels ?? {};
    return tests.every((test) => test(labels));
  };
}

export function parseLabelTests(text: string): readonly LabelTest[] {
  if (text.length > maxSelectorLength) throw ApiError.badRequest("the label selector is too long");
  return splitOutsideParentheses(text).map((part) => parseLabelTest(part.trim()));
}

function parseLabelTest(part: string): LabelTest {
  const set = /^([^\s!=<>()]+)\s+(in|notin)\s*\(([^()]*)\)$/.exec(part);
  if (set !== null) {
    const key = checkedKey(set[1] ?? "");
    const values = new Set((set[3] ?? "").split(",").map((value) => checkedValue(value.trim())));
    if (set[2] === "in") return (labels) => contains(values, own(labels, key));
    return (labels) => !contains(values, own(labels, key));
  }
  const comparison = /^([^\s!=<>()]+)\s*(==|!=|=|>|<)\s*([^\s!=<>()]*)$/.exec(part);
  if (comparison !== null) {
    const key = checkedKey(comparison[1] ?? "");
    const value = checkedValue(comparison[3] ?? "");
    switch (comparison[2]) {
      case "!=":
        return (labels) => own(labels, key) !== value;
      case ">":
      case "<": {
        const sign = comparison[2] === ">" ? 1 : -1;
        const bound = Number.parseInt(value, 10);
        return (labels) => (Number.parseInt(String(own(labels, key)), 10) - bound) * sign > 0;
      }
      default:
        return (labels) => own(labels, key) === value;
    }
  }
  const presence = /^(!?)\s*([^\s!=<>()]+)$/.exec(part);
  if (presence !== null) {
    const key = checkedKey(presence[2] ?? "");
    return presence[1] === "!" ? (labels) => own(labels, key) === undefined : (labels) => own(labels, key) !== undefined;
  }
  throw ApiError.badRequest(`unable to parse requirement: ${JSON.stringify(part.slice(0, 128))}`);
}

/** The predicate of a `LabelSelector` object (`matchLabels`, `matchExpressions`); an empty one matches everything. */
export function labelSelectorObject(selector: JsonObject): LabelTest {
  const labels = isObject(selector["matchLabels"]) ? selector["matchLabels"] : {};
  const expressions = Array.isArray(selector["matchExpressions"]) ? selector["matchExpressions"].filter(isObject) : [];
  const tests: LabelTest[] = Object.entries(labels).map(
    ([key, value]) =>
      (candidate) =>
        own(candidate, key) === value,
  );
  for (const expression of expressions) {
    const key = String(expression["key"]);
    const values = new Set(Array.isArray(expression["values"]) ? expression["values"].map(String) : []);
    tests.push((candidate) => {
      const value = own(candidate, key);
      switch (expression["operator"]) {
        case "In":
          return contains(values, value);
        case "NotIn":
          return !contains(values, value);
        case "Exists":
          return value !== undefined;
        case "DoesNotExist":
          return value === undefined;
        default:
          return false;
      }
    });
  }
  return (candidate) => tests.every((test) => test(candidate));
}

/** Fields that lists and watches may select on, per type (`plural.group`), besides metadata.name and metadata.namespace. */
const selectableFields: Readonly<Record<string, readonly string[]>> = {
  pods: ["spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase", "status.podIP", "status.nominatedNodeName"],
  events: [
    ...["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"].map((field) => `involvedObject.${field}`),
    "reason",
    "reportingComponent",
    "source",
    "type",
  ],
  namespaces: ["status.phase"],
  nodes: ["spec.unschedulable"],
  secrets: ["type"],
  services: ["spec.clusterIP", "spec.type"],
  "replicasets.apps": ["status.replicas"],
  "jobs.batch": ["status.successful"],
};

/** Parses `metadata.name=a,status.phase!=Running` for one type; `extra` are the selectable fields of a CRD. */
export function parseFieldSelector(text: string, type: { group: string; plural: string }, extra: readonly string[] = []): ObjectPredicate {
  if (text.length > maxSelectorLength) throw ApiError.badRequest("the field selector is too long");
  const known = own(selectableFields, type.group === "" ? type.plural : `${type.plural}.${type.group}`) ?? [];
  const tests = text
    .split(",")
    .filter((part) => part !== "")
    .map((part) => {
      const match = /^([^=!]+)(==|=|!=)(.*)$/.exec(part);
      if (match === null) throw ApiError.badRequest(`invalid field selector: ${JSON.stringify(part.slice(0, 128))}; it needs =, == or !=`);
      const [, field = "", operator, value = ""] = match;
      if (field !== "metadata.name" && field !== "metadata.namespace" && !known.includes(field) && !extra.includes(field)) {
        throw ApiError.badRequest(`field label not supported: ${field.slice(0, 128)}`);
      }
      const path = field === "source" ? ["source", "component"] : field.split(".");
      return (object: KubeObject): boolean => (fieldText(object, path) === value) === (operator !== "!=");
    });
  return (object) => tests.every((test) => test(object));
}

function contains(values: ReadonlySet<string>, value: Json | undefined): boolean {
  return typeof value === "string" && values.has(value);
}

function fieldText(object: KubeObject, path: readonly string[]): string {
  const value = atPath(object, ...path);
  return value === undefined || value === null || typeof value === "object" ? "" : String(value);
}

function splitOutsideParentheses(text: string): readonly string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let index = 0; index < text.length; index += 1) {
    if (text[index] === "(") depth += 1;
    else if (text[index] === ")") depth -= 1;
    else if (text[index] === "," && depth === 0) {
      parts.push(text.slice(start, index));
      start = index + 1;
    }
  }
  parts.push(text.slice(start));
  return parts.length === 1 && parts[0]?.trim() === "" ? [] : parts;
}

function checkedKey(key: string): string {
  if (key.length > 317 || !keyPattern.test(key))
    throw ApiError.badRequest(`unable to parse requirement: ${JSON.stringify(key.slice(0, 128))} is not a label key`);
  return key;
}

function checkedValue(value: string): string {
  if (value.length > 63 || !valuePattern.test(value)) {
    throw ApiError.badRequest(`unable to parse requirement: values: Invalid value: ${JSON.stringify(value.slice(0, 128))}: not a valid label value`);
  }
  return value;
}
