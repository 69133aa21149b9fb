/** Policies made ready for matching: ranges as bytes, identities as plain text, empty matches gone. Compiled once, used for every connection. */
import { type Cidr, ipToBytes } from "./address.ts";
import { identityOf } from "./identity.ts";
import type { AuthorizationPolicy, ConnectionFacts, PolicyMatch, ServiceAccountMatch, StringMatch } from "./policy.ts";
import { type PolicyKey, policyKey } from "./workload.ts";

/** What policies look at, prepared once per decision. */
export interface MatchFacts {
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly port: number;
  /** "" when there is no identity. */
  readonly namespace: string;
  readonly serviceAccount: string;
  /** `<trust domain>/ns/<namespace>/sa/<service account>`; undefined when there is no identity. */
  readonly principal: string | undefined;
}

interface CompiledRange {
  readonly bytes: Uint8Array;
  readonly length: number;
}

/** String matchers sorted by kind; undefined stands for "no matchers", which is what most fields have. */
interface CompiledTexts {
  readonly exact: readonly string[];
  readonly prefixes: readonly string[];
  readonly suffixes: readonly string[];
  readonly presence: boolean;
}

interface CompiledMatch {
  readonly ports: readonly number[];
  readonly notPorts: readonly number[];
  readonly namespaces: CompiledTexts | undefined;
  readonly notNamespaces: CompiledTexts | undefined;
  readonly principals: CompiledTexts | undefined;
  readonly notPrincipals: CompiledTexts | undefined;
  readonly serviceAccounts: readonly ServiceAccountMatch[];
  readonly notServiceAccounts: readonly ServiceAccountMatch[];
  readonly sources: readonly CompiledRange[];
  readonly notSources: readonly CompiledRange[];
  readonly destinations: readonly CompiledRange[];
  readonly notDestinations: readonly CompiledRange[];
}

type CompiledClause = readonly CompiledMatch[] | typeof always;
type CompiledRule = readonly CompiledClause[];

export interface CompiledPolicy {
  readonly key: PolicyKey;
  readonly rules: readonly CompiledRule[];
  /** Stands in for a policy that could not be read. */
  readonly refused: boolean;
}

/** Policies in the order in which they are asked. */
export interface CompiledSet {
  readonly deny: readonly CompiledPolicy[];
  readonly allow: readonly CompiledPolicy[];
  readonly dryRunDeny: readonly CompiledPolicy[];
  readonly dryRunAllow: readonly CompiledPolicy[];
}

const always = "always";
const spiffeScheme = "spiffe://";
const compiledPolicies = new WeakMap<AuthorizationPolicy, CompiledPolicy>();
const compiledSets = new WeakMap<readonly AuthorizationPolicy[], CompiledSet>();

/** Remembered per array, which a snapshot hands out again as long as the policies do not change. */
export function compileSet(policies: readonly AuthorizationPolicy[]): CompiledSet {
  let set = compiledSets.get(policies);
  if (set === undefined) {
    const of = (action: AuthorizationPolicy["action"], dryRun: boolean) =>
      policies.filter((policy) => policy.action === action && policy.dryRun === dryRun).map(compile);
    set = { deny: of("deny", false), allow: of("allow", false), dryRunDeny: of("deny", true), dryRunAllow: of("allow", true) };
    compiledSets.set(policies, set);
  }
  return set;
}

export function matchFacts({ source, destination, identity }: ConnectionFacts): MatchFacts {
  const { namespace, serviceAccount } = identity === undefined ? { namespace: "", serviceAccount: "" } : identityOf(identity);
  return {
    source: ipToBytes(source.ip),
    destination: ipToBytes(destination.ip),
    port: destination.port,
    namespace,
    serviceAccount,
    principal: identity?.slice(spiffeScheme.length),
  };
}

/** Any rule; a policy with no rules never matches (ztunnel contract 6.4). Allocates nothing. */
export function policyMatches({ rules }: CompiledPolicy, facts: MatchFacts): boolean {
  for (const rule of rules) if (ruleMatches(rule, facts)) return true;
  return false;
}

function ruleMatches(rule: CompiledRule, facts: MatchFacts): boolean {
  for (const clause of rule) if (!clauseMatches(clause, facts)) return false;
  return true;
}

function clauseMatches(clause: CompiledClause, facts: MatchFacts): boolean {
  if (clause === always) return true;
  for (const match of clause) if (matches(match, facts)) return true;
  return false;
}

/** All kinds of fields together; cheap ones first. */
function matches(match: CompiledMatch, facts: MatchFacts): boolean {
  return (
    (match.ports.length === 0 || match.ports.includes(facts.port)) &&
    (match.namespaces === undefined || anyText(match.namespaces, facts.namespace)) &&
    (match.principals === undefined || anyText(match.principals, facts.principal)) &&
    (match.serviceAccounts.length === 0 || anyServiceAccount(match.serviceAccounts, facts)) &&
    (match.sources.length === 0 || anyRange(match.sources, facts.source)) &&
    (match.destinations.length === 0 || anyRange(match.destinations, facts.destination)) &&
    !match.notPorts.includes(facts.port) &&
    !(match.notNamespaces !== undefined && anyText(match.notNamespaces, facts.namespace)) &&
    !(match.notPrincipals !== undefined && anyText(match.notPrincipals, facts.principal)) &&
    !anyServiceAccount(match.notServiceAccounts, facts) &&
    !anyRange(match.notSources, facts.source) &&
    !anyRange(match.notDestinations, facts.destination)
  );
}

/** Nothing matches an absent subject, not even presence: `not_principals: [presence]` is how "no identity" is written. */
function anyText({ exact, prefixes, suffixes, presence }: CompiledTexts, text: string | undefined): boolean {
  if (text === undefined) return false;
  if (exact.includes(text) || (presence && text !== "")) return true;
  for (const prefix of prefixes) if (text.startsWith(prefix)) return true;
  for (const suffix of suffixes) if (text.endsWith(suffix)) return true;
  return false;
}

function anyServiceAccount(accounts: readonly ServiceAccountMatch[], facts: MatchFacts): boolean {
  if (facts.principal === undefined) return false;
  for (const account of accounts) if (account.serviceAccount === facts.serviceAccount && account.namespace === facts.namespace) return true;
  return false;
}

function anyRange(ranges: readonly CompiledRange[], address: Uint8Array): boolean {
  for (const range of ranges) if (rangeContains(range, address)) return true;
  return false;
}

function rangeContains({ bytes, length }: CompiledRange, address: Uint8Array): boolean {
  if (bytes.length !== address.length) return false;
  const whole = length >> 3;
  for (let index = 0; index < whole; index++) if (bytes[index] !== address[index]) return false;
  const rest = length & 7;
  return rest === 0 || (((bytes[whole] ?? 0) ^ (address[whole] ?? 0)) & (0xff << (8 - rest)) & 0xff) === 0;
}

function compile(policy: AuthorizationPolicy): CompiledPolicy {
  let compiled = compiledPolicies.get(policy);
  if (compiled === undefined) {
    const rules = policy.rules.map(({ clauses }) => clauses.map(({ matches }) => compileClause(matches)));
    compiled = { key: policyKey(policy.namespace, policy.name), rules, refused: policy.refused === true };
    compiledPolicies.set(policy, compiled);
  }
  return compiled;
}

/** No matches: always true. Only empty matches: an empty list, which is never true (ztunnel contract 6.4). */
function compileClause(matches: readonly PolicyMatch[]): CompiledClause {
  if (matches.length === 0) return always;
  return matches.filter((match) => !isEmpty(match)).map(compileMatch);
}

function isEmpty(match: PolicyMatch): boolean {
  return Object.values(match).every((values: readonly unknown[]) => values.length === 0);
}

function compileMatch(match: PolicyMatch): CompiledMatch {
  return {
    ports: match.destinationPorts,
    notPorts: match.notDestinationPorts,
    namespaces: compileTexts(match.namespaces),
    notNamespaces: compileTexts(match.notNamespaces),
    principals: compileTexts(match.principals),
    notPrincipals: compileTexts(match.notPrincipals),
    serviceAccounts: match.serviceAccounts,
    notServiceAccounts: match.notServiceAccounts,
    sources: match.sourceIps.map(compileRange),
    notSources: match.notSourceIps.map(compileRange),
    destinations: match.destinationIps.map(compileRange),
    notDestinations: match.notDestinationIps.map(compileRange),
  };
}

function compileTexts(patterns: readonly StringMatch[]): CompiledTexts | undefined {
  if (patterns.length === 0) return undefined;
  const of = (kind: "exact" | "prefix" | "suffix") => patterns.flatMap((pattern) => (pattern.kind === kind ? [pattern.value] : []));
  return { exact: of("exact"), prefixes: of("prefix"), suffixes: of("suffix"), presence: patterns.some(({ kind }) => kind === "presence") };
}

function compileRange({ ip, length }: Cidr): CompiledRange {
  return { bytes: ipToBytes(ip), length };
}
