/**
 * The part of JSONPath that printer columns use: `.a.b`, `['a.b']`, `[0]`, `[*]`, and `[?(@.type=="Ready")]`.
 * A path that is none of that reads nothing.
 */
import { isObject, type Json, own } from "./json.ts";

export type JsonPathValue = Json;

type Step = { readonly member: string } | { readonly index: number } | { readonly all: true } | { readonly where: readonly string[]; readonly equals: string };

const stepPattern = /^(?:\.([A-Za-z0-9_-]+)|\[(\d{1,6})\]|\[(\*)\]|\['([^']+)'\]|\[\?\(\s*@\.([A-Za-z0-9_.-]+)\s*==\s*["']([^"']*)["']\s*\)\])/;
/** Longer paths are nothing anybody wrote. */
const maxPathLength = 1024;

export function readJsonPath(value: Json, path: string): readonly JsonPathValue[] {
  const steps = parsePath(path);
  if (steps === undefined) return [];
  let current: readonly Json[] = [value];
  for (const step of steps) current = current.flatMap((item) => follow(item, step));
  return current;
}

function parsePath(path: string): readonly Step[] | undefined {
  if (path.length > maxPathLength) return undefined;
  let rest = path
    .replace(/^\{(.*)\}$/, "$1")
    .replace(/^\$/, "")
    .replaceAll("\\.", "\u0000");
  if (rest !== "" && !rest.startsWith(".") && !rest.startsWith("[")) rest = `.${rest}`;
  const steps: Step[] = [];
  while (rest !== "") {
    const escaped = /^\.((?:[A-Za-z0-9_/-]|\0)+)/.exec(rest);
    const match = escaped === null ? stepPattern.exec(rest) : null;
    if (escaped !== null) steps.push({ member: (escaped[1] ?? "").replaceAll("\u0000", ".") });
    else if (match === null) return undefined;
    else {
      const [, member, index, all, quoted, where, equals] = match;
      if (member !== undefined || quoted !== undefined) steps.push({ member: member ?? quoted ?? "" });
      else if (index !== undefined) steps.push({ index: Number(index) });
      else if (all !== undefined) steps.push({ all: true });
      else steps.push({ where: (where ?? "").split("."), equals: equals ?? "" });
    }
    rest = rest.slice((escaped ?? match)?.[0].length ?? rest.length);
  }
  return steps;
}

function follow(value: Json, step: Step): readonly Json[] {
  if ("member" in step) {
    const found = isObject(value) ? own(value, step.member) : undefined;
    return found === undefined ? [] : [found];
  }
  if (!Array.isArray(value)) return "all" in step && isObject(value) ? Object.values(value).filter((item) => item !== undefined) : [];
  if ("all" in step) return value;
  if ("index" in step) return value[step.index] === undefined ? [] : [value[step.index] ?? null];
  return value.filter((item) => {
    let found: Json | undefined = item;
    for (const member of step.where) found = isObject(found) ? own(found, member) : undefined;
    return found !== undefined && String(found) === step.equals;
  });
}
