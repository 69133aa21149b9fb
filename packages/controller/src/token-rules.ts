/**
 * From a RequestAuthentication to the issuers that a waypoint accepts tokens of (controller contract 4.8). A rule that cannot be kept as it
 * is written accepts no token of its issuer.
 */
import type { JwtRule, RequestAuthentication } from "@fairway/kube";
import { discoveryPath, type TokenRule } from "@fairway/model";
import { messageOf } from "@fairway/runtime";
import { targetKeys } from "./request-policies.ts";
import { isRecord, unknownFields } from "./unknown-fields.ts";

export interface TokenOutcome {
  readonly key: string;
  readonly namespace: string;
  readonly targets: readonly string[];
  readonly rules: readonly TokenRule[];
  readonly problems: readonly string[];
}

const noKeys: TokenRule["keys"] = { kind: "inline", jwks: '{"keys":[]}' };
const defaultTimeoutMs = 5_000;
const specFields: ReadonlySet<string> = new Set(["selector", "targetRef", "targetRefs", "jwtRules"]);
const ruleFields: ReadonlySet<string> = new Set([
  "issuer",
  "audiences",
  "jwksUri",
  "jwks_uri",
  "jwks",
  "fromHeaders",
  "fromParams",
  "fromCookies",
  "outputPayloadToHeader",
  "outputClaimToHeaders",
  "forwardOriginalToken",
  "timeout",
]);

/** Never throws. */
export function convertRequestAuthentication({ metadata, spec }: RequestAuthentication, rootNamespace: string): TokenOutcome {
  const namespace = metadata.namespace ?? "";
  const key = `${namespace}/${metadata.name}`;
  const problems = [...unknownFields(spec, { path: "spec", known: specFields })];
  const rules = (Array.isArray(spec?.jwtRules) ? spec.jwtRules : []).flatMap((rule, index) => {
    const path = `spec.jwtRules[${index}]`;
    const before = problems.length;
    try {
      const read = readRule(rule, key, path, problems);
      return read === undefined ? [] : [problems.length > before ? { ...read, keys: noKeys } : read];
    } catch (thrown) {
      problems.push(`${path}: ${messageOf(thrown)}`);
      return [];
    }
  });
  return { key, namespace, targets: targetKeys(spec, namespace, rootNamespace), rules, problems };
}

/** Undefined when not even the issuer is known. */
function readRule(rule: JwtRule, origin: string, path: string, problems: string[]): TokenRule | undefined {
  problems.push(...unknownFields(rule, { path, known: ruleFields }));
  if (!isRecord(rule) || typeof rule.issuer !== "string" || rule.issuer === "") {
    problems.push(`${path}.issuer: is required`);
    return undefined;
  }
  return {
    origin,
    issuer: rule.issuer,
    audiences: rule.audiences ?? [],
    keys: readKeys(rule, path, problems),
    fromHeaders: (rule.fromHeaders ?? []).map(({ name, prefix = "" }) => ({ name: name.toLowerCase(), prefix })),
    fromParams: rule.fromParams ?? [],
    fromCookies: rule.fromCookies ?? [],
    forwardOriginalToken: rule.forwardOriginalToken ?? false,
    outputPayloadToHeader: rule.outputPayloadToHeader === "" ? undefined : rule.outputPayloadToHeader?.toLowerCase(),
    outputClaimToHeaders: (rule.outputClaimToHeaders ?? []).map(({ header, claim }) => ({ header: header.toLowerCase(), claim })),
  };
}

function readKeys(rule: JwtRule & { readonly jwks_uri?: string }, path: string, problems: string[]): TokenRule["keys"] {
  const { jwks = "", issuer } = rule;
  const uri = rule.jwksUri ?? rule.jwks_uri ?? "";
  if (jwks !== "") {
    if (!isKeySet(jwks)) problems.push(`${path}.jwks: is not a JSON Web Key Set`);
    return { kind: "inline", jwks };
  }
  const remote = uri === "" ? `${issuer.replace(/\/$/, "")}${discoveryPath}` : uri;
  if (!isHttpUrl(remote)) {
    problems.push(
      uri === ""
        ? `${path}: without jwks and jwksUri the issuer must be an http or https URL, to be asked for its keys`
        : `${path}.jwksUri: is not an http or https URL`,
    );
  }
  return { kind: "remote", uri: remote, timeoutMs: readTimeout(rule.timeout, path, problems) };
}

/** A protobuf duration: seconds, or with Go's units. */
function readTimeout(text: string | undefined, path: string, problems: string[]): number {
  if (text === undefined) return defaultTimeoutMs;
  const [, digits, unit] = /^(\d+(?:\.\d+)?)(ms|s|m)$/.exec(text) ?? [];
  const timeoutMs = Number(digits) * (unit === "ms" ? 1 : unit === "s" ? 1_000 : 60_000);
  if (timeoutMs > 0) return Math.max(Math.round(timeoutMs), 1);
  problems.push(`${path}.timeout: ${JSON.stringify(text)} is not a duration such as 5s`);
  return defaultTimeoutMs;
}

function isKeySet(text: string): boolean {
  try {
    const parsed: unknown = JSON.parse(text);
    return isRecord(parsed) && Array.isArray(parsed["keys"]);
  } catch {
    return false;
  }
}

function isHttpUrl(text: string): boolean {
  try {
    return ["http:", "https:"].includes(new URL(text).protocol);
  } catch {
    return false;
  }
}
