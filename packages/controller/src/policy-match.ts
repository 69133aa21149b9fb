/** The parts of an AuthorizationPolicy rule as L4 matches, with what could not be said at L4 or could not be read. */
import type { AuthorizationOperation, AuthorizationRule, AuthorizationSource } from "@fairway/kube";
import {
  type Cidr,
  emptyMatch,
  InvalidValueError,
  isPort,
  type PolicyClause,
  type PolicyMatch,
  parseCidr,
  type ServiceAccountMatch,
  type StringMatch,
} from "@fairway/model";
import { unknownFields } from "./unknown-fields.ts";

/** A rule in L4 words. `http` names attributes that only a waypoint can check; `unreadable` says which fields and values are not what they should be. */
export interface RuleReading {
  readonly clauses: readonly PolicyClause[];
  readonly http: readonly string[];
  readonly unreadable: readonly string[];
  /** Matches that say nothing any more because nothing in them could be read; as they stand they would never hold. */
  readonly emptied: ReadonlySet<PolicyMatch>;
}

class Notes {
  readonly http: string[] = [];
  readonly unreadable: string[] = [];
  readonly emptied = new Set<PolicyMatch>();

  /** Fields that are not known count as unreadable: what they were to narrow is not known either. */
  examine(value: unknown, path: string, known: ReadonlySet<string>): void {
    this.unreadable.push(...unknownFields(value, { path, known }));
  }

  /** One match, remembered when it lost all it had to values that cannot be read. */
  match(read: () => PolicyMatch): PolicyMatch {
    const before = this.unreadable.length;
    const match = read();
    if (this.unreadable.length > before && isEmptyMatch(match)) this.emptied.add(match);
    return match;
  }
}

export function isEmptyMatch(match: PolicyMatch): boolean {
  return Object.values(match).every((values: readonly unknown[]) => values.length === 0);
}

const httpSourceFields = ["requestPrincipals", "notRequestPrincipals", "remoteIpBlocks", "notRemoteIpBlocks"] as const;
/** L4 in meaning, but the wire has no word for them; enforced at a waypoint only, and never silently dropped. */
const trustDomainFields = ["trustDomains", "notTrustDomains"] as const;
const httpOperationFields = ["hosts", "notHosts", "methods", "notMethods", "paths", "notPaths"] as const;

const ruleFields = new Set(["from", "to", "when"]);
const fromFields = new Set(["source"]);
const toFields = new Set(["operation"]);
const whenFields = new Set(["key", "values", "notValues"]);
const bothWays = (...fields: readonly string[]): readonly string[] =>
  fields.flatMap((field) => [field, `not${field.charAt(0).toUpperCase()}${field.slice(1)}`]);
const sourceFields = new Set([...bothWays("principals", "namespaces", "serviceAccounts", "ipBlocks"), ...httpSourceFields, ...trustDomainFields]);
const operationFields = new Set([...bothWays("ports"), ...httpOperationFields]);
/** Condition keys that only a waypoint can check (controller contract 4.4). */
const httpConditionKeys: ReadonlySet<string> = new Set(["remote.ip", "connection.sni", "source.serviceAccount", "source.trustDomain"]);
const httpConditionPrefixes = ["request.", "experimental."] as const;

/** `to` is one clause, `from` one, each `when` one (controller contract 4.4). `path` is where the rule stands in its object. */
export function readRule(rule: AuthorizationRule, namespace: string, path: string): RuleReading {
  const notes = new Notes();
  const clauses: PolicyClause[] = [];
  notes.examine(rule, path, ruleFields);
  const { to = [], from = [], when = [] } = rule;
  const operations = to.map((entry, index) =>
    notes.match(() => {
      notes.examine(entry, `${path}.to[${index}]`, toFields);
      notes.examine(entry.operation, `${path}.to[${index}].operation`, operationFields);
      return readOperation(entry.operation ?? {}, notes);
    }),
  );
  if (operations.length > 0) clauses.push({ matches: operations });
  const sources = from.map((entry, index) =>
    notes.match(() => {
      notes.examine(entry, `${path}.from[${index}]`, fromFields);
      notes.examine(entry.source, `${path}.from[${index}].source`, sourceFields);
      return readSource(entry.source ?? {}, namespace, notes);
    }),
  );
  if (sources.length > 0) clauses.push({ matches: sources });
  for (const [index, condition] of when.entries()) {
    const match = notes.match(() => {
      notes.examine(condition, `${path}.when[${index}]`, whenFields);
      return readCondition(condition, notes);
    });
    clauses.push({ matches: [match] });
  }
  return { clauses, http: [...new Set(notes.http)], unreadable: notes.unreadable, emptied: notes.emptied };
}

function readOperation(operation: AuthorizationOperation, notes: Notes): PolicyMatch {
  for (const field of httpOperationFields) if ((operation[field]?.length ?? 0) > 0) notes.http.push(field);
  return {
    ...emptyMatch,
    destinationPorts: read("ports", operation.ports, parsePort, notes),
    notDestinationPorts: read("notPorts", operation.notPorts, parsePort, notes),
  };
}

function readSource(source: AuthorizationSource, namespace: string, notes: Notes): PolicyMatch {
  for (const field of [...httpSourceFields, ...trustDomainFields]) if ((source[field]?.length ?? 0) > 0) notes.http.push(field);
  const account = (text: string): ServiceAccountMatch => parseServiceAccount(text, namespace);
  return {
    ...emptyMatch,
    principals: read("principals", source.principals, parseStringMatch, notes),
    notPrincipals: read("notPrincipals", source.notPrincipals, parseStringMatch, notes),
    namespaces: read("namespaces", source.namespaces, parseStringMatch, notes),
    notNamespaces: read("notNamespaces", source.notNamespaces, parseStringMatch, notes),
    serviceAccounts: read("serviceAccounts", source.serviceAccounts, account, notes),
    notServiceAccounts: read("notServiceAccounts", source.notServiceAccounts, account, notes),
    sourceIps: read("ipBlocks", source.ipBlocks, parseCidr, notes),
    notSourceIps: read("notIpBlocks", source.notIpBlocks, parseCidr, notes),
  };
}

function readCondition({ key, values, notValues }: { key: string; values?: string[]; notValues?: string[] }, notes: Notes): PolicyMatch {
  const strings = () => [read(key, values, parseStringMatch, notes), read(key, notValues, parseStringMatch, notes)] as const;
  const ranges = () => [read<Cidr>(key, values, parseCidr, notes), read<Cidr>(key, notValues, parseCidr, notes)] as const;
  switch (key) {
    case "source.ip": {
      const [sourceIps, notSourceIps] = ranges();
      return { ...emptyMatch, sourceIps, notSourceIps };
    }
    case "source.namespace": {
      const [namespaces, notNamespaces] = strings();
      return { ...emptyMatch, namespaces, notNamespaces };
    }
    case "source.principal": {
      const [principals, notPrincipals] = strings();
      return { ...emptyMatch, principals, notPrincipals };
    }
    case "destination.ip": {
      const [destinationIps, notDestinationIps] = ranges();
      return { ...emptyMatch, destinationIps, notDestinationIps };
    }
    case "destination.port": {
      const destinationPorts = read(key, values, parsePort, notes);
      return { ...emptyMatch, destinationPorts, notDestinationPorts: read(key, notValues, parsePort, notes) };
    }
    default:
      if (isHttpCondition(key)) notes.http.push(key);
      else notes.unreadable.push(`when.key: ${JSON.stringify(key) ?? "nothing"} is not an attribute of a connection or request`);
      // A new one each time: matches are remembered by what they are.
      return { ...emptyMatch };
  }
}

function isHttpCondition(key: unknown): key is string {
  return typeof key === "string" && (httpConditionKeys.has(key) || httpConditionPrefixes.some((prefix) => key.startsWith(prefix)));
}

/** The readable values; the others are noted. What that means for the rule depends on the policy's action. */
function read<V>(field: string, texts: readonly string[] | undefined, parse: (text: string) => V, notes: Notes): readonly V[] {
  return (texts ?? []).flatMap((text): V[] => {
    try {
      return [parse(String(text))];
    } catch (thrown) {
      if (!(thrown instanceof InvalidValueError)) throw thrown;
      notes.unreadable.push(`${field}: ${thrown.message}`);
      return [];
    }
  });
}

/** `*` any, `*x` suffix, `x*` prefix, else exact. "" would match callers without identity and is refused. */
function parseStringMatch(text: string): StringMatch {
  if (text === "") throw new InvalidValueError("an empty value matches nothing that can be meant");
  if (text === "*") return { kind: "presence" };
  if (text.startsWith("*")) return { kind: "suffix", value: text.slice(1) };
  if (text.endsWith("*")) return { kind: "prefix", value: text.slice(0, -1) };
  return { kind: "exact", value: text };
}

/** `sa` of the policy's namespace, or `namespace/sa`; no wildcards. */
function parseServiceAccount(text: string, policyNamespace: string): ServiceAccountMatch {
  const parts = text.split("/");
  const [namespace, serviceAccount] = parts.length === 1 ? [policyNamespace, text] : parts;
  if (parts.length > 2 || !namespace || !serviceAccount || text.includes("*")) {
    throw new InvalidValueError(`${JSON.stringify(text)} is not a service account; write name or namespace/name`);
  }
  return { namespace, serviceAccount };
}

function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (!isPort(port)) throw new InvalidValueError(`${JSON.stringify(text)} is not a port`);
  return port;
}
