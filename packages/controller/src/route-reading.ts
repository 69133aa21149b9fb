/** What a route says, judged by itself. What it needs of others - backends, grants, its parents - is looked at where those are known. */
import type {
  KubeObject,
  RouteFilter,
  RouteHeaderFilter,
  RouteParentReference,
  RoutePathModifier,
  RouteValueMatch,
  WeightedBackendReference,
} from "@fairway/kube";
import {
  compilePattern,
  type HeaderChanges,
  type HeaderMatch,
  InvalidValueError,
  isPort,
  noHeaderChanges,
  type PathChange,
  type QueryMatch,
  type Redirect,
  type RetryPolicy,
  type Rewrite,
  type RouteMatch,
  type TextMatch,
} from "@fairway/model";
import { messageOf } from "@fairway/runtime";
import { isRecord } from "./unknown-fields.ts";

export type RouteKind = "HTTPRoute" | "GRPCRoute";

/** A sentence for the author: on which condition, with which of the spec's reasons. */
export interface RouteProblem {
  readonly condition: "Accepted" | "ResolvedRefs";
  readonly reason: string;
  readonly message: string;
}

export interface RouteReading {
  /** `HTTPRoute/<namespace>/<name>` */
  readonly key: string;
  readonly kind: RouteKind;
  readonly namespace: string;
  readonly name: string;
  readonly created: string;
  readonly parents: readonly RouteParentReference[];
  readonly rules: readonly RuleReading[];
}

export interface RuleReading {
  /** Of the routes that it becomes. */
  readonly name: string;
  /** Those that can be read; one that cannot matches nothing. */
  readonly matches: readonly RouteMatch[];
  readonly requestHeaders: HeaderChanges;
  readonly responseHeaders: HeaderChanges;
  readonly action: RuleAction;
  readonly problems: readonly RouteProblem[];
}

export type RuleAction =
  | {
      readonly kind: "forward";
      readonly backends: readonly BackendReading[];
      readonly timeoutMs: number | undefined;
      readonly perTryTimeoutMs: number | undefined;
      /** What the rule asks for; undefined when it asks for nothing. */
      readonly retry: RetryPolicy | undefined;
      readonly rewrite: Rewrite | undefined;
      readonly mirrors: readonly MirrorReading[];
    }
  | { readonly kind: "redirect"; readonly redirect: Redirect }
  /** Something in the rule cannot be done as it is written: its requests are answered 500, never treated as if it were not there. */
  | { readonly kind: "broken" };

export interface BackendReading {
  readonly reference: WeightedBackendReference;
  readonly weight: number;
  readonly requestHeaders: HeaderChanges;
  readonly responseHeaders: HeaderChanges;
}

export interface MirrorReading {
  readonly reference: WeightedBackendReference;
  readonly fraction: number;
}

/** One route under its key. An object that no definition would let in matches nothing, and says so. */
export function readSafely<T extends KubeObject>(kind: RouteKind, object: T, read: (object: T) => RouteReading): readonly (readonly [string, RouteReading])[] {
  try {
    const reading = read(object);
    return [[reading.key, reading]];
  } catch (thrown) {
    const { namespace = "", name, creationTimestamp: created = "" } = object.metadata;
    const key = `${kind}/${namespace}/${name}`;
    const problems: RouteProblem[] = [{ condition: "Accepted", reason: "UnsupportedValue", message: `the route cannot be read: ${messageOf(thrown)}` }];
    const rule: RuleReading = {
      name: key,
      matches: [],
      requestHeaders: noHeaderChanges,
      responseHeaders: noHeaderChanges,
      action: { kind: "broken" },
      problems,
    };
    return [[key, { key, kind, namespace, name, created, parents: parentsOf(object), rules: [rule] }]];
  }
}

/** What names a parent at all; the definitions let nothing else in. */
export function parentsOf(object: KubeObject): readonly RouteParentReference[] {
  const { spec } = object as { spec?: { parentRefs?: unknown } };
  const parents = spec?.parentRefs;
  return Array.isArray(parents) ? parents.filter((parent): parent is RouteParentReference => isRecord(parent) && typeof parent["name"] === "string") : [];
}

/** Of the Gateway API: hours to milliseconds, largest first or not, at most four parts. */
const durationPattern = /^([0-9]{1,5}(h|m|s|ms)){1,4}$/;
const durationUnits: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1_000, ms: 1 };
const headerName = /^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$/;
const unprintable = /[\0\r\n]/;
const maxWeight = 1_000_000;
const redirectStatuses: readonly number[] = [301, 302, 303, 307, 308];

/** Collects what is wrong in one rule. */
export class Problems {
  readonly list: RouteProblem[] = [];

  add(condition: RouteProblem["condition"], reason: string, message: string): void {
    this.list.push({ condition, reason, message });
  }

  /** Undefined, and a problem, when the value is not what it should be. */
  attempt<T>(path: string, read: () => T): T | undefined {
    try {
      return read();
    } catch (thrown) {
      if (!(thrown instanceof InvalidValueError)) throw thrown;
      this.add("Accepted", "UnsupportedValue", `${path}: ${thrown.message}`);
      return undefined;
    }
  }
}

export interface FiltersReading {
  readonly requestHeaders: HeaderChanges;
  readonly responseHeaders: HeaderChanges;
  readonly redirect: Redirect | undefined;
  readonly rewrite: Rewrite | undefined;
  readonly mirrors: readonly MirrorReading[];
}

/** Filters that stand where they stand: at a rule, or at a backend, where only headers can be changed. */
export type FilterPlace = RouteKind | "backend";

const filtersAt: Readonly<Record<FilterPlace, ReadonlySet<string>>> = {
  HTTPRoute: new Set(["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite"]),
  GRPCRoute: new Set(["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror"]),
  backend: new Set(["RequestHeaderModifier", "ResponseHeaderModifier"]),
};

/** Undefined, and problems, when any of them cannot be done: leaving out a filter would let through what it was to change. */
export function readFilters(filters: readonly RouteFilter[], place: FilterPlace, path: string, problems: Problems): FiltersReading | undefined {
  const before = problems.list.length;
  let requestHeaders = noHeaderChanges;
  let responseHeaders = noHeaderChanges;
  let redirect: Redirect | undefined;
  let rewrite: Rewrite | undefined;
  const mirrors: MirrorReading[] = [];
  const seen = new Set<string>();
  for (const [index, filter] of filters.entries()) {
    const where = `${path}[${index}]`;
    if (!filtersAt[place].has(filter.type)) {
      problems.add("ResolvedRefs", "InvalidFilter", `${where}: filters of type ${filter.type} are not supported here`);
      continue;
    }
    if (seen.has(filter.type) && filter.type !== "RequestMirror") {
      problems.add("Accepted", "IncompatibleFilters", `${where}: a second ${filter.type} in the same place`);
    }
    seen.add(filter.type);
    problems.attempt(where, () => {
      switch (filter.type) {
        case "RequestHeaderModifier":
          requestHeaders = readHeaderChanges(filter.requestHeaderModifier);
          break;
        case "ResponseHeaderModifier":
          responseHeaders = readHeaderChanges(filter.responseHeaderModifier);
          break;
        case "RequestMirror":
          mirrors.push(readMirror(filter));
          break;
        case "RequestRedirect":
          redirect = readRedirect(filter);
          break;
        default:
          rewrite = { authority: filter.urlRewrite?.hostname, path: readPathChange(filter.urlRewrite?.path) };
      }
    });
  }
  if (redirect !== undefined && rewrite !== undefined) {
    problems.add("Accepted", "IncompatibleFilters", `${path}: RequestRedirect and URLRewrite exclude each other`);
  }
  return problems.list.length > before ? undefined : { requestHeaders, responseHeaders, redirect, rewrite, mirrors };
}

/** Undefined, and problems, when one of them says what cannot be: shares that are not known cannot be kept. */
export function readBackends(references: readonly WeightedBackendReference[], path: string, problems: Problems): readonly BackendReading[] | undefined {
  const before = problems.list.length;
  const backends = references.map((reference, index): BackendReading => {
    const where = `${path}[${index}]`;
    const weight = problems.attempt(`${where}.weight`, () => readWholeNumber(reference.weight ?? 1, 0, maxWeight)) ?? 0;
    const filters = readFilters(reference.filters ?? [], "backend", `${where}.filters`, problems);
    return { reference, weight, requestHeaders: filters?.requestHeaders ?? noHeaderChanges, responseHeaders: filters?.responseHeaders ?? noHeaderChanges };
  });
  return problems.list.length > before ? undefined : backends;
}

/** Of several that ask about one name only the first counts. */
export function readHeaderMatches(matches: readonly RouteValueMatch[]): readonly HeaderMatch[] {
  const byName = new Map<string, HeaderMatch>();
  for (const { type, name, value } of matches) {
    const lower = readHeaderName(name);
    // What a client writes as Host arrives as the authority.
    const asked = lower === "host" ? ":authority" : lower;
    if (!byName.has(asked)) byName.set(asked, { name: asked, value: readTextMatch(type, value), invert: false });
  }
  return [...byName.values()];
}

export function readQueryMatches(matches: readonly RouteValueMatch[]): readonly QueryMatch[] {
  const byName = new Map<string, QueryMatch>();
  for (const { type, name, value } of matches) if (!byName.has(name)) byName.set(name, { name, value: readTextMatch(type, value) });
  return [...byName.values()];
}

export function readTextMatch(type: string | undefined, value: string): TextMatch {
  if (type === undefined || type === "Exact") return { kind: "exact", value };
  if (type === "RegularExpression") return { kind: "regex", pattern: compilePattern(value) };
  throw new InvalidValueError(`${JSON.stringify(type)} is none of Exact, RegularExpression`);
}

/** Milliseconds; 0 for `0s`, which switches a limit off. */
export function readDuration(text: string): number {
  if (!durationPattern.test(text)) throw new InvalidValueError(`${JSON.stringify(text)} is not a duration such as 1500ms, 10s or 1m30s`);
  let total = 0;
  for (const [, count, unit] of text.matchAll(/([0-9]+)(h|ms|m|s)/g)) total += Number(count) * (durationUnits[unit ?? ""] ?? 0);
  return total;
}

export function readWholeNumber(value: number, least: number, most: number): number {
  if (!Number.isInteger(value) || value < least || value > most)
    throw new InvalidValueError(`${JSON.stringify(value)} is not a whole number from ${least} to ${most}`);
  return value;
}

/** Of several that name one header only the first counts. */
function readHeaderChanges({ set = [], add = [], remove = [] }: RouteHeaderFilter = {}): HeaderChanges {
  const values = (entries: readonly { name: string; value: string }[]) => {
    const byName = new Map<string, string>();
    for (const { name, value } of entries) {
      const lower = readHeaderName(name);
      if (unprintable.test(value)) throw new InvalidValueError(`the value of ${lower} holds a line break or a zero byte`);
      if (!byName.has(lower)) byName.set(lower, value);
    }
    return [...byName].map(([name, value]) => ({ name, value }));
  };
  return { set: values(set), add: values(add), remove: [...new Set(remove.map(readHeaderName))] };
}

function readHeaderName(name: string): string {
  if (!headerName.test(name)) throw new InvalidValueError(`${JSON.stringify(name)} is not the name of a header`);
  return name.toLowerCase();
}

function readMirror({ requestMirror }: RouteFilter): MirrorReading {
  if (requestMirror === undefined) throw new InvalidValueError("requestMirror is missing");
  const { backendRef, percent, fraction } = requestMirror;
  if (percent !== undefined && fraction !== undefined) throw new InvalidValueError("percent and fraction exclude each other");
  const share = fraction === undefined ? (percent ?? 100) / 100 : fraction.numerator / (fraction.denominator ?? 100);
  if (!(share >= 0 && share <= 1)) throw new InvalidValueError("the share that is mirrored is not between nothing and all");
  return { reference: backendRef, fraction: share };
}

function readRedirect({ requestRedirect: redirect = {} }: RouteFilter): Redirect {
  const { scheme, hostname, port, statusCode = 302 } = redirect;
  if (scheme !== undefined && scheme !== "http" && scheme !== "https") throw new InvalidValueError(`${JSON.stringify(scheme)} is neither http nor https`);
  if (port !== undefined && !isPort(port)) throw new InvalidValueError(`${port} is not a port`);
  if (!redirectStatuses.includes(statusCode)) throw new InvalidValueError(`${statusCode} is none of ${redirectStatuses.join(", ")}`);
  return { scheme, hostname, port, path: readPathChange(redirect.path), status: statusCode as Redirect["status"] };
}

function readPathChange(modifier: RoutePathModifier | undefined): PathChange | undefined {
  if (modifier === undefined) return undefined;
  const { type, replaceFullPath, replacePrefixMatch } = modifier;
  const value = type === "ReplaceFullPath" ? replaceFullPath : type === "ReplacePrefixMatch" ? replacePrefixMatch : undefined;
  if (value === undefined) throw new InvalidValueError(`a path modifier of type ${JSON.stringify(type)} without its value`);
  if (unprintable.test(value) || /[\s?#]/.test(value)) throw new InvalidValueError(`${JSON.stringify(value)} is not a path`);
  if (type === "ReplaceFullPath") return { kind: "full", value: value.startsWith("/") ? value : `/${value}` };
  return { kind: "prefix", value: value.startsWith("/") ? value : `/${value}` };
}
