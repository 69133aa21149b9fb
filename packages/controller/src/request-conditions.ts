/** One rule of an AuthorizationPolicy as a condition on requests (controller contract 4.7), with what in it could not be read. */
import type { AuthorizationOperation, AuthorizationRule, AuthorizationSource } from "@fairway/kube";
import { compilePattern, InvalidValueError, isPort, parseCidr, type RequestCondition, type TextMatch } from "@fairway/model";
import { unknownFields } from "./unknown-fields.ts";

export interface ConditionReading {
  readonly condition: RequestCondition;
  /** Fields and values that are not what they should be, in words. */
  readonly unreadable: readonly string[];
}

const any: RequestCondition = { kind: "any" };
const ruleFields = new Set(["from", "to", "when"]);
const fromFields = new Set(["source"]);
const toFields = new Set(["operation"]);
const whenFields = new Set(["key", "values", "notValues"]);

/** Claims whose text is a list of words, unless the token says otherwise. */
const wordClaims: ReadonlySet<string> = new Set(["scope", "permission"]);

/** How one value of an attribute is read; throws InvalidValueError. */
type ReadValue = (value: string) => RequestCondition;

const negated = (field: string): string => `not${field.charAt(0).toUpperCase()}${field.slice(1)}`;

/** `to`, `from` and each `when` must hold; the entries of one are alternatives. `path` is where the rule stands in its object. */
export function readRequestRule(rule: AuthorizationRule, namespace: string, path: string): ConditionReading {
  const reader = new Reader(namespace);
  reader.examine(rule, path, ruleFields);
  const { to = [], from = [], when = [] } = rule;
  const parts: RequestCondition[] = [];
  if (to.length > 0) {
    parts.push(
      some(
        to.map((entry, index) => {
          const where = `${path}.to[${index}]`;
          reader.examine(entry, where, toFields);
          return reader.fields(entry.operation, operationReaders, `${where}.operation`);
        }),
      ),
    );
  }
  if (from.length > 0) {
    const sources = sourceReaders(namespace);
    parts.push(
      some(
        from.map((entry, index) => {
          const where = `${path}.from[${index}]`;
          reader.examine(entry, where, fromFields);
          return reader.fields(entry.source, sources, `${where}.source`);
        }),
      ),
    );
  }
  for (const [index, condition] of when.entries()) {
    const where = `${path}.when[${index}]`;
    reader.examine(condition, where, whenFields);
    parts.push(reader.condition(condition, where));
  }
  return { condition: all(parts), unreadable: reader.unreadable };
}

class Reader {
  readonly unreadable: string[] = [];
  readonly #namespace: string;

  constructor(namespace: string) {
    this.#namespace = namespace;
  }

  examine(value: unknown, path: string, known: ReadonlySet<string>): void {
    this.unreadable.push(...unknownFields(value, { path, known }));
  }

  /** Each field and its negation: one of the values, none of the others. */
  fields(entry: AuthorizationSource | AuthorizationOperation | undefined, readers: ReadonlyMap<string, ReadValue>, path: string): RequestCondition {
    this.examine(entry, path, new Set([...readers.keys()].flatMap((field) => [field, negated(field)])));
    const given = (entry ?? {}) as Readonly<Record<string, readonly string[] | undefined>>;
    const parts: RequestCondition[] = [];
    for (const [field, read] of readers) {
      parts.push(...this.values(field, given[field], read), ...this.values(negated(field), given[negated(field)], read).map(not));
    }
    if (Object.keys(given).length === 0) this.unreadable.push(`${path}: says nothing`);
    return all(parts);
  }

  condition({ key, values, notValues }: { key: string; values?: string[]; notValues?: string[] }, path: string): RequestCondition {
    const read = conditionReader(key, this.#namespace);
    if (read === undefined) {
      this.unreadable.push(`${path}.key: ${JSON.stringify(key) ?? "nothing"} is not an attribute of a connection or request`);
      return any;
    }
    if ((values?.length ?? 0) === 0 && (notValues?.length ?? 0) === 0) this.unreadable.push(`${path}: has no values`);
    return all([...this.values(key, values, read), ...this.values(key, notValues, read).map(not)]);
  }

  /** One condition that holds when one of the readable values does; none when there are none. */
  values(field: string, texts: readonly string[] | undefined, read: ReadValue): readonly RequestCondition[] {
    if (texts === undefined || texts.length === 0) return [];
    const conditions = texts.flatMap((text) => {
      try {
        return [read(String(text))];
      } catch (thrown) {
        if (!(thrown instanceof InvalidValueError)) throw thrown;
        this.unreadable.push(`${field}: ${thrown.message}`);
        return [];
      }
    });
    return conditions.length === 0 ? [] : [some(conditions)];
  }
}

const ranges =
  (kind: "source-ip" | "remote-ip" | "destination-ip"): ReadValue =>
  (text) => ({ kind, range: parseCidr(text) });

const operationReaders: ReadonlyMap<string, ReadValue> = new Map<string, ReadValue>([
  ["hosts", (text) => ({ kind: "header", name: ":authority", match: orPresent(text, true) })],
  ["methods", (text) => ({ kind: "header", name: ":method", match: orPresent(text) })],
  ["paths", (text) => ({ kind: "path", match: readPathMatch(text) })],
  ["ports", readPort],
]);

function sourceReaders(namespace: string): ReadonlyMap<string, ReadValue> {
  return new Map<string, ReadValue>([
    ["principals", readPrincipal],
    ["requestPrincipals", readRequestPrincipal],
    ["namespaces", readNamespace],
    ["serviceAccounts", (text) => readServiceAccount(text, namespace)],
    ["trustDomains", readTrustDomain],
    ["ipBlocks", ranges("source-ip")],
    ["remoteIpBlocks", ranges("remote-ip")],
  ]);
}

function conditionReader(key: unknown, namespace: string): ReadValue | undefined {
  switch (key) {
    case "source.ip":
      return ranges("source-ip");
    case "remote.ip":
      return ranges("remote-ip");
    case "destination.ip":
      return ranges("destination-ip");
    case "destination.port":
      return readPort;
    case "source.namespace":
      return readNamespace;
    case "source.principal":
      return readPrincipal;
    case "source.serviceAccount":
      return (text) => readServiceAccount(text, namespace);
    case "source.trustDomain":
      return readTrustDomain;
    case "connection.sni":
      return (text) => ({ kind: "server-name", match: readText(text, true) });
    case "request.auth.principal":
      return readRequestPrincipal;
    case "request.auth.audiences":
      return (text) => claim(["aud"], text);
    case "request.auth.presenter":
      return (text) => claim(["azp"], text);
    default:
      return typeof key === "string" ? bracketReader(key) : undefined;
  }
}

/** `request.headers[x]` and `request.auth.claims[a][b]`. */
function bracketReader(key: string): ReadValue | undefined {
  const header = /^request\.headers\[([^[\]\s]+)\]$/.exec(key)?.[1];
  if (header !== undefined) return (text) => ({ kind: "header", name: header.toLowerCase(), match: orPresent(text) });
  if (!/^request\.auth\.claims(\[[^[\]]+\])+$/.test(key)) return undefined;
  const path = [...key.matchAll(/\[([^[\]]+)\]/g)].map(([, part = ""]) => part);
  const isWords = path.length === 1 && wordClaims.has(path[0] ?? "");
  return (text) => (isWords && text !== "*" ? { kind: "claim", path, match: oneWord(text) } : claim(path, text));
}

/** One of several words in one text, as OAuth writes scopes (RFC 6749, 3.3); a list of them matches as lists do. */
function oneWord(text: string): TextMatch {
  const match = readText(text);
  if (match.kind === "regex") return match;
  const word = quoted(match.value);
  const open = { exact: word, prefix: `${word}[^ ]*`, suffix: `[^ ]*${word}`, contains: `[^ ]*${word}[^ ]*` }[match.kind];
  return { kind: "regex", pattern: compilePattern(`(?:.* )?${open}(?: .*)?`) };
}

/** `<trust domain>/ns/<namespace>/sa/<service account>`, open at one end. */
function readPrincipal(text: string): RequestCondition {
  const match = readText(text);
  return { kind: "principal", match: match.kind === "exact" || match.kind === "prefix" ? { kind: match.kind, value: `spiffe://${match.value}` } : match };
}

function readNamespace(text: string): RequestCondition {
  if (text === "") throw new InvalidValueError("an empty value matches nothing that can be meant");
  return { kind: "principal", match: { kind: "regex", pattern: compilePattern(`spiffe://[^/]+/ns/${glob(text)}/sa/[^/]+`) } };
}

function readTrustDomain(text: string): RequestCondition {
  if (text === "") throw new InvalidValueError("an empty value matches nothing that can be meant");
  if (!text.includes("*")) return { kind: "principal", match: { kind: "prefix", value: `spiffe://${text}/` } };
  return { kind: "principal", match: { kind: "regex", pattern: compilePattern(`spiffe://${glob(text)}/ns/[^/]+/sa/[^/]+`) } };
}

/** `sa` of the policy's namespace, or `namespace/sa`; no wildcards. */
function readServiceAccount(text: string, policyNamespace: string): RequestCondition {
  const parts = text.split("/");
  const [namespace, account] = parts.length === 1 ? [policyNamespace, text] : parts;
  if (parts.length > 2 || !namespace || !account || text.includes("*")) {
    throw new InvalidValueError(`${JSON.stringify(text)} is not a service account; write name or namespace/name`);
  }
  return { kind: "principal", match: { kind: "suffix", value: `/ns/${namespace}/sa/${account}` } };
}

/** `<issuer>/<subject>`, parted at the last slash; `*` is any token that was verified. */
function readRequestPrincipal(text: string): RequestCondition {
  if (text === "*") return all([claim(["iss"], "*"), claim(["sub"], "*")]);
  const slash = text.lastIndexOf("/");
  if (slash <= 0 || slash === text.length - 1) throw new InvalidValueError(`${JSON.stringify(text)} is not <issuer>/<subject>`);
  return all([claim(["iss"], text.slice(0, slash)), claim(["sub"], text.slice(slash + 1))]);
}

function claim(path: readonly string[], text: string): RequestCondition {
  return { kind: "claim", path, match: orPresent(text) };
}

function readPort(text: string): RequestCondition {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (!isPort(port)) throw new InvalidValueError(`${JSON.stringify(text)} is not a port`);
  return { kind: "destination-port", from: port, to: port };
}

/** With `{*}` for one path element and `{**}` for any number; else open at one end. */
function readPathMatch(text: string): TextMatch {
  if (!text.includes("{*}") && !text.includes("{**}")) return readText(text);
  const parts = text.split("/");
  if (parts.some((part) => part.includes("*") && part !== "{*}" && part !== "{**}")) {
    throw new InvalidValueError(`${JSON.stringify(text)}: {*} and {**} stand for whole elements of the path, and no other * may be beside them`);
  }
  const pattern = parts.map((part) => (part === "{*}" ? "[^/]+" : part === "{**}" ? ".*" : quoted(part))).join("/");
  return { kind: "regex", pattern: compilePattern(pattern) };
}

function orPresent(text: string, ignoreCase = false): TextMatch | { readonly kind: "present" } {
  return text === "*" ? { kind: "present" } : readText(text, ignoreCase);
}

/** `*x` suffix, `x*` prefix, `*` anything, else exact. "" would match callers without the attribute and is refused. */
function readText(text: string, ignoreCase = false): TextMatch {
  if (text === "") throw new InvalidValueError("an empty value matches nothing that can be meant");
  if (text === "*") return { kind: "regex", pattern: compilePattern(".+") };
  const without = ignoreCase ? { ignoreCase } : {};
  if (text.startsWith("*")) return { kind: "suffix", value: text.slice(1), ...without };
  if (text.endsWith("*")) return { kind: "prefix", value: text.slice(0, -1), ...without };
  return { kind: "exact", value: text, ...without };
}

function glob(text: string): string {
  return text.split("*").map(quoted).join("[^/]*");
}

function quoted(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
}

function not(of: RequestCondition): RequestCondition {
  return { kind: "not", of };
}

function some(of: readonly RequestCondition[]): RequestCondition {
  return of.length === 1 && of[0] !== undefined ? of[0] : { kind: "some", of };
}

function all(of: readonly RequestCondition[]): RequestCondition {
  if (of.length === 0) return any;
  return of.length === 1 && of[0] !== undefined ? of[0] : { kind: "all", of };
}
