/** From a GRPCRoute to what it says: a call is a POST to `/<service>/<method>` (controller contract 5.2). */
import type { GrpcRouteMatch, GrpcRouteObject, GrpcRouteRule } from "@fairway/kube";
import { compilePattern, InvalidValueError, noHeaderChanges, type PathMatch, type RouteMatch } from "@fairway/model";
import { Problems, parentsOf, type RouteReading, type RuleReading, readBackends, readFilters, readHeaderMatches } from "./route-reading.ts";

/** Names of protobuf services and methods. */
const grpcName = /^[A-Za-z_][A-Za-z_0-9.]*$/;
const anyName = "[^/]+";

export function readGrpcRoute(object: GrpcRouteObject): RouteReading {
  const { metadata, spec = {} } = object;
  const namespace = metadata.namespace ?? "";
  const rules = spec.rules ?? [{}];
  return {
    key: `GRPCRoute/${namespace}/${metadata.name}`,
    kind: "GRPCRoute",
    namespace,
    name: metadata.name,
    created: metadata.creationTimestamp ?? "",
    parents: parentsOf(object),
    rules: rules.map((rule, index) => readRule(rule, rule.name ?? `${namespace}.${metadata.name}.${index}`, `spec.rules[${index}]`)),
  };
}

function readRule(rule: GrpcRouteRule, name: string, path: string): RuleReading {
  const problems = new Problems();
  const asked: readonly GrpcRouteMatch[] = rule.matches === undefined || rule.matches.length === 0 ? [{}] : rule.matches;
  const matches = asked.flatMap((match, index) => problems.attempt(`${path}.matches[${index}]`, () => readMatch(match)) ?? []);
  const filters = readFilters(rule.filters ?? [], "GRPCRoute", `${path}.filters`, problems);
  const backends = readBackends(rule.backendRefs ?? [], `${path}.backendRefs`, problems);
  const usable = filters !== undefined && backends !== undefined;
  return {
    name,
    matches,
    requestHeaders: filters?.requestHeaders ?? noHeaderChanges,
    responseHeaders: filters?.responseHeaders ?? noHeaderChanges,
    action: usable
      ? { kind: "forward", backends, timeoutMs: undefined, perTryTimeoutMs: undefined, retry: undefined, rewrite: undefined, mirrors: filters.mirrors }
      : { kind: "broken" },
    problems: problems.list,
  };
}

function readMatch({ method, headers = [] }: GrpcRouteMatch): RouteMatch {
  return { path: readMethod(method), method: undefined, headers: readHeaderMatches(headers), query: [], grpc: true };
}

function readMethod({ type = "Exact", service = "", method = "" }: NonNullable<GrpcRouteMatch["method"]> = {}): PathMatch {
  if (type === "RegularExpression") {
    if (service === "" && method === "") return { kind: "prefix", value: "/" };
    return { kind: "regex", pattern: compilePattern(`/${group(service)}/${group(method)}`) };
  }
  if (type !== "Exact") throw new InvalidValueError(`${JSON.stringify(type)} is none of Exact, RegularExpression`);
  for (const name of [service, method]) if (name !== "" && !grpcName.test(name)) throw new InvalidValueError(`${JSON.stringify(name)} is not a name in gRPC`);
  if (service !== "" && method !== "") return { kind: "exact", value: `/${service}/${method}` };
  if (service !== "") return { kind: "prefix", value: `/${service}/` };
  if (method !== "") return { kind: "regex", pattern: compilePattern(`/${anyName}/${method}`) };
  return { kind: "prefix", value: "/" };
}

/** Compiled on its own first, so that one part cannot reach into the other. */
function group(source: string): string {
  if (source === "") return anyName;
  compilePattern(source);
  return `(?:${source})`;
}
