/** From an HTTPRoute to what it says (controller contract 5.2, 5.3). One bad rule harms no other. */
import type { HttpRouteMatch, HttpRouteObject, HttpRouteRule } from "@fairway/kube";
import { compilePattern, InvalidValueError, noHeaderChanges, type PathMatch, type RetryPolicy, type RouteMatch } from "@fairway/model";
import {
  Problems,
  parentsOf,
  type RouteReading,
  type RuleAction,
  type RuleReading,
  readBackends,
  readDuration,
  readFilters,
  readHeaderMatches,
  readQueryMatches,
  readWholeNumber,
} from "./route-reading.ts";

const methods: ReadonlySet<string> = new Set(["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]);
/** What the spec forbids in a path: it can only be meant to be read otherwise than it is written. */
const forbiddenInPath = /\/\/|\/\.\.?(\/|$)|%2f|#/i;
const defaultAttempts = 2;
const maxAttempts = 100;
const defaultBackoffMs = 25;
const backoffSpan = 10;

export function readHttpRoute(object: HttpRouteObject): RouteReading {
  const { metadata, spec = {} } = object;
  const namespace = metadata.namespace ?? "";
  const rules = spec.rules ?? [{}];
  return {
    key: `HTTPRoute/${namespace}/${metadata.name}`,
    kind: "HTTPRoute",
    namespace,
    name: metadata.name,
    created: metadata.creationTimestamp ?? "",
    parents: parentsOf(object),
    rules: rules.map((rule, index) => readRule(rule, rule.name ?? `${namespace}.${metadata.name}.${index}`, `spec.rules[${index}]`)),
  };
}

function readRule(rule: HttpRouteRule, name: string, path: string): RuleReading {
  const problems = new Problems();
  const asked: readonly HttpRouteMatch[] = rule.matches === undefined || rule.matches.length === 0 ? [{}] : rule.matches;
  const matches = asked.flatMap((match, index) => problems.attempt(`${path}.matches[${index}]`, () => readMatch(match)) ?? []);
  const filters = readFilters(rule.filters ?? [], "HTTPRoute", `${path}.filters`, problems);
  const action = readAction(rule, { path, filters, matches }, problems);
  return {
    name,
    matches,
    requestHeaders: filters?.requestHeaders ?? noHeaderChanges,
    responseHeaders: filters?.responseHeaders ?? noHeaderChanges,
    action: action ?? { kind: "broken" },
    problems: problems.list,
  };
}

interface RuleParts {
  readonly path: string;
  readonly filters: ReturnType<typeof readFilters>;
  readonly matches: readonly RouteMatch[];
}

/** Undefined when the rule cannot be done as it is written. */
function readAction(rule: HttpRouteRule, { path, filters, matches }: RuleParts, problems: Problems): RuleAction | undefined {
  const before = problems.list.length;
  const changesPrefix = [filters?.redirect?.path, filters?.rewrite?.path].some((change) => change?.kind === "prefix");
  if (changesPrefix && matches.some((match) => match.path.kind !== "path-prefix" && match.path.kind !== "prefix")) {
    problems.add("Accepted", "UnsupportedValue", `${path}.filters: ReplacePrefixMatch needs matches of type PathPrefix`);
  }
  const backends = readBackends(rule.backendRefs ?? [], `${path}.backendRefs`, problems);
  const timeoutMs = problems.attempt(`${path}.timeouts.request`, () => readLimit(rule.timeouts?.request));
  const perTryTimeoutMs = problems.attempt(`${path}.timeouts.backendRequest`, () => readLimit(rule.timeouts?.backendRequest));
  const retry = problems.attempt(`${path}.retry`, () => readRetry(rule.retry));
  if (filters === undefined || backends === undefined || problems.list.length > before) return undefined;
  if (filters.redirect !== undefined) return { kind: "redirect", redirect: filters.redirect };
  return { kind: "forward", backends, timeoutMs, perTryTimeoutMs, retry, rewrite: filters.rewrite, mirrors: filters.mirrors };
}

function readMatch({ path, headers = [], queryParams = [], method }: HttpRouteMatch): RouteMatch {
  if (method !== undefined && !methods.has(method)) throw new InvalidValueError(`${JSON.stringify(method)} is not a method`);
  return {
    path: readPath(path?.type ?? "PathPrefix", path?.value ?? "/"),
    method,
    headers: readHeaderMatches(headers),
    query: readQueryMatches(queryParams),
    grpc: false,
  };
}

function readPath(type: string, value: string): PathMatch {
  if (type === "RegularExpression") return { kind: "regex", pattern: compilePattern(value) };
  if (type !== "Exact" && type !== "PathPrefix") throw new InvalidValueError(`${JSON.stringify(type)} is none of Exact, PathPrefix, RegularExpression`);
  if (!value.startsWith("/") || forbiddenInPath.test(value)) throw new InvalidValueError(`${JSON.stringify(value)} is not a path to match`);
  if (type === "Exact") return { kind: "exact", value };
  const trimmed = value.replace(/\/+$/, "");
  return trimmed === "" ? { kind: "prefix", value: "/" } : { kind: "path-prefix", value: trimmed };
}

function readLimit(text: string | undefined): number | undefined {
  const limit = text === undefined ? 0 : readDuration(text);
  return limit === 0 ? undefined : limit;
}

/** The codes asked for, and always what failed on the way (GEP-1731), even where it may have reached the application: the rule asks for it. */
function readRetry(retry: HttpRouteRule["retry"]): RetryPolicy | undefined {
  if (retry === undefined) return undefined;
  const { codes = [], attempts = defaultAttempts, backoff } = retry;
  const baseMs = backoff === undefined ? defaultBackoffMs : Math.max(readDuration(backoff), 1);
  return {
    on: ["connect-failure", "refused-stream", "reset", "unavailable", "cancelled", ...(codes.length === 0 ? [] : (["retriable-status-codes"] as const))],
    attempts: readWholeNumber(attempts, 0, maxAttempts),
    statusCodes: codes.map((code) => readWholeNumber(code, 400, 599)),
    perTryTimeoutMs: undefined,
    backoff: { baseMs, maxMs: baseMs * backoffSpan },
  };
}
