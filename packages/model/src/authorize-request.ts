/**
 * Whether a request may pass (controller contract 4.7): DENY before ALLOW; no ALLOW policy allows all, and where there are some one must match.
 * Where a request can be read in more than one way - repeated header fields, paths that applications decode further - ALLOW must hold for
 * every reading and DENY needs only one (docs/policy.md).
 */
import { cidrContains } from "./address.ts";
import { splitAuthority } from "./change-request.ts";
import { pathOf, pathVariants } from "./http-path.ts";
import type { Claims, JsonValue, RequestFacts } from "./http-request.ts";
import { textMatches } from "./pattern.ts";
import type { RequestCondition, RequestPolicy, RequestVerdict } from "./request-policy.ts";
import type { TextMatch } from "./text-match.ts";

/** `certainly`: in every reading of the request; `possibly`: in at least one. */
type Reading = "certainly" | "possibly";

export function authorizeRequest(policies: readonly RequestPolicy[], facts: RequestFacts): RequestVerdict {
  const observed: { key: string; action: RequestPolicy["action"] }[] = [];
  let denied: RequestVerdict["policy"];
  let allowed: RequestVerdict["policy"];
  let mustBeAllowed = false;
  for (const policy of policies) {
    const enforced = !policy.dryRun && policy.action !== "audit";
    if (enforced && policy.action === "allow") mustBeAllowed = true;
    const rule = policy.rules.findIndex((condition) => holds(condition, facts, policy.action === "allow" ? "certainly" : "possibly"));
    if (rule < 0) continue;
    const key = `${policy.namespace}/${policy.name}`;
    if (!enforced) observed.push({ key, action: policy.action });
    else if (policy.action === "deny") denied ??= { key, rule };
    else allowed ??= { key, rule };
  }
  if (denied !== undefined) return { allowed: false, policy: denied, reason: "denied-by-policy", observed };
  if (!mustBeAllowed) return { allowed: true, policy: undefined, reason: "allow-all", observed };
  return { allowed: allowed !== undefined, policy: allowed, reason: allowed === undefined ? "no-allow-matched" : "allowed", observed };
}

/**
 * The policy as it holds for bytes that are not HTTP (controller contract 4.7): an ALLOW rule that asks for more never matches, a DENY rule
 * asks for what is left of it, so that neither lets more through.
 */
export function policyForTcp(policy: RequestPolicy): RequestPolicy {
  const rules = policy.rules.flatMap((condition) => {
    const { kept, complete } = withoutHttp(condition);
    return complete || policy.action !== "allow" ? [kept] : [];
  });
  return { ...policy, rules };
}

function holds(condition: RequestCondition, facts: RequestFacts, reading: Reading): boolean {
  switch (condition.kind) {
    case "any":
      return true;
    case "all":
      return condition.of.every((part) => holds(part, facts, reading));
    case "some":
      return condition.of.some((part) => holds(part, facts, reading));
    case "not":
      return !holds(condition.of, facts, reading === "certainly" ? "possibly" : "certainly");
    case "principal":
      return facts.identity !== undefined && textMatches(condition.match, facts.identity);
    case "source-ip":
      return cidrContains(condition.range, facts.source.ip);
    case "remote-ip":
      return cidrContains(condition.range, facts.remote.ip);
    case "destination-ip":
      return cidrContains(condition.range, facts.destination.ip);
    case "destination-port":
      return facts.destination.port >= condition.from && facts.destination.port <= condition.to;
    case "header":
      return inReadings(headerReadings(condition.name, facts, reading), condition.match, reading);
    case "path": {
      const path = pathOf(facts.head.path);
      return inReadings([path, ...pathVariants(path)], condition.match, reading);
    }
    case "server-name":
      return facts.serverName !== undefined && textMatches(condition.match, facts.serverName);
    case "claim":
      return claimHolds(claimAt(facts.claims, condition.path), condition.match);
  }
}

function inReadings(readings: readonly string[], match: TextMatch | { readonly kind: "present" }, reading: Reading): boolean {
  if (readings.length === 0) return false;
  if (match.kind === "present") return true;
  return reading === "possibly" ? readings.some((text) => textMatches(match, text)) : readings.every((text) => textMatches(match, text));
}

/** Some applications take the first of repeated fields, some the last, some all joined. */
function headerReadings(name: string, { head }: RequestFacts, reading: Reading): readonly string[] {
  if (name === ":method") return [head.method];
  if (name === ":path") return [head.path];
  if (name === ":authority" || name === "host") return reading === "possibly" ? [head.authority, splitAuthority(head.authority).hostname] : [head.authority];
  const values = head.headers.getAll(name);
  return values.length < 2 ? values : [...values, values.join(",")];
}

function claimAt(claims: Claims | undefined, path: readonly string[]): JsonValue | undefined {
  let value: JsonValue | undefined = claims;
  for (const key of path)
    value = typeof value === "object" && value !== null && !Array.isArray(value) && Object.hasOwn(value, key) ? (value as Claims)[key] : undefined;
  return value;
}

/** A text, or a list of which one element matches. A number or a truth value is compared as JSON writes it. */
function claimHolds(value: JsonValue | undefined, match: TextMatch | { readonly kind: "present" }): boolean {
  if (value === undefined || value === null) return false;
  if (Array.isArray(value)) return value.some((element) => claimHolds(element, match));
  if (match.kind === "present") return value !== "";
  return typeof value !== "object" && textMatches(match, String(value));
}

const tcpConditions: ReadonlySet<RequestCondition["kind"]> = new Set([
  "any",
  "principal",
  "source-ip",
  "remote-ip",
  "destination-ip",
  "destination-port",
  "server-name",
]);

/** What is left when conditions on HTTP are taken for true. */
function withoutHttp(condition: RequestCondition): { readonly kept: RequestCondition; readonly complete: boolean } {
  switch (condition.kind) {
    case "all":
    case "some": {
      const parts = condition.of.map(withoutHttp);
      return { kept: { kind: condition.kind, of: parts.map(({ kept }) => kept) }, complete: parts.every(({ complete }) => complete) };
    }
    case "not": {
      const { kept, complete } = withoutHttp(condition.of);
      return complete ? { kept: { kind: "not", of: kept }, complete } : { kept: { kind: "any" }, complete };
    }
    default:
      return tcpConditions.has(condition.kind) ? { kept: condition, complete: true } : { kept: { kind: "any" }, complete: false };
  }
}
