/**
 * Tokens of a request against the rules of its target (controller contract 4.8): no token is no fault; every token that is there must be one
 * that some rule accepts. What a rule writes for the application is taken away first, so that no client can write it.
 */
import { type Claims, HeaderFields, type JsonValue, type RequestHead, type TokenRule } from "@fairway/model";
import { type Clock, errorCode } from "@fairway/runtime";
import { decodeJwt, decodeProtectedHeader, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from "jose";
import { waypointError } from "./failure.ts";
import type { TokenKeys } from "./token-keys.ts";
import { type FoundToken, tokensOf, withoutToken } from "./token-locations.ts";

export interface VerifiedRequest {
  /** Of the first valid token. */
  readonly claims: Claims | undefined;
  readonly head: RequestHead;
}

export interface TokenVerifier {
  /** Throws WAYPOINT_TOKEN_REFUSED with the status and words for the client, or the signal's reason. */
  verify(rules: readonly TokenRule[], head: RequestHead, options: { signal: AbortSignal }): Promise<VerifiedRequest>;
}

/** Signatures by key pairs only: a shared secret, or none, proves nothing here. */
const algorithms = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"];
const clockSkewSeconds = 60;

interface Candidate {
  readonly rule: TokenRule;
  readonly found: FoundToken;
}

export function createTokenVerifier({ keys, clock }: { readonly keys: TokenKeys; readonly clock: Clock }): TokenVerifier {
  return {
    async verify(rules, head, { signal }) {
      const candidates = rules.flatMap((rule) => tokensOf(rule, head).map((found): Candidate => ({ rule, found })));
      let result: VerifiedRequest = { claims: undefined, head: withoutOutputs(head, rules) };
      for (const token of new Set(candidates.map(({ found }) => found.token))) {
        const accepted = await acceptedBy(
          candidates.filter(({ found }) => found.token === token),
          token,
          { keys, clock, head, signal },
        );
        result = applied(result, accepted);
      }
      return result;
    },
  };
}

interface Accepted extends Candidate {
  readonly payload: JWTPayload;
}

async function acceptedBy(
  candidates: readonly Candidate[],
  token: string,
  given: { keys: TokenKeys; clock: Clock; head: RequestHead; signal: AbortSignal },
): Promise<Accepted> {
  const issuer = issuerOf(token, given.head);
  let refusal = refused(given.head, "Jwt issuer is not configured");
  for (const { rule, found } of candidates) {
    if (rule.issuer !== issuer) continue;
    try {
      return { rule, found, payload: await verified(token, rule, given) };
    } catch (thrown) {
      given.signal.throwIfAborted();
      refusal = refused(given.head, wordsOf(thrown), thrown);
    }
  }
  throw refusal;
}

async function verified(token: string, rule: TokenRule, { keys, clock, signal }: { keys: TokenKeys; clock: Clock; signal: AbortSignal }): Promise<JWTPayload> {
  try {
    return await withKeys(token, rule, await keys.keysFor(rule, { signal }), clock);
  } catch (thrown) {
    const unknownKey = thrown instanceof errors.JWKSNoMatchingKey;
    if (!unknownKey || !(await keys.refreshed(rule, { signal }))) throw thrown;
    return withKeys(token, rule, await keys.keysFor(rule, { signal }), clock);
  }
}

async function withKeys(token: string, rule: TokenRule, keys: JWTVerifyGetKey, clock: Clock): Promise<JWTPayload> {
  const options = {
    algorithms,
    issuer: rule.issuer,
    clockTolerance: clockSkewSeconds,
    currentDate: new Date(clock.now()),
    ...(rule.audiences.length === 0 ? {} : { audience: [...rule.audiences] }),
  };
  try {
    return (await jwtVerify(token, keys, options)).payload;
  } catch (thrown) {
    if (!(thrown instanceof errors.JWKSMultipleMatchingKeys)) throw thrown;
    // A token without a key id: any of the issuer's keys may have signed it.
    for await (const key of thrown) {
      try {
        return (await jwtVerify(token, key, options)).payload;
      } catch (again) {
        if (!(again instanceof errors.JWSSignatureVerificationFailed)) throw again;
      }
    }
    throw new errors.JWSSignatureVerificationFailed();
  }
}

function issuerOf(token: string, head: RequestHead): string | undefined {
  try {
    decodeProtectedHeader(token);
    return decodeJwt(token).iss;
  } catch (cause) {
    throw refused(head, "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections", cause);
  }
}

/** In the reference's words. */
function wordsOf(thrown: unknown): string {
  if (errorCode(thrown) === "WAYPOINT_KEYS_UNREACHABLE") return "Jwks remote fetch is failed";
  if (thrown instanceof errors.JWTExpired) return "Jwt is expired";
  if (thrown instanceof errors.JWKSNoMatchingKey) return "Jwks doesn't have key to match kid or alg from Jwt";
  if (thrown instanceof errors.JOSEAlgNotAllowed) return "Header alg is not supported";
  if (thrown instanceof errors.JWTClaimValidationFailed) return claimWords[thrown.claim] ?? "Jwt verification fails";
  return "Jwt verification fails";
}

const audienceWords = "Audiences in Jwt are not allowed";
const claimWords: Readonly<Record<string, string>> = { aud: audienceWords, nbf: "Jwt not yet valid", iss: "Jwt issuer is not configured" };

function refused(head: RequestHead, words: string, cause?: unknown): Error {
  // A token that is valid but for others is a 403, as in Envoy.
  const status = words === audienceWords ? 403 : 401;
  const realm = `${head.scheme}://${head.authority}${head.path.split("?", 1)[0] ?? ""}`.replaceAll(/["\\]/g, "");
  const challenge = status === 401 ? { challenge: `Bearer realm="${realm}", error="invalid_token"` } : {};
  const detail = `jwt_authn_access_denied{${words.replaceAll(" ", "_")}}`;
  return waypointError("WAYPOINT_TOKEN_REFUSED", words, { cause, details: { status, body: words, detail, ...challenge } });
}

function withoutOutputs(head: RequestHead, rules: readonly TokenRule[]): RequestHead {
  const names = new Set(rules.flatMap(outputsOf).map((name) => name.toLowerCase()));
  if (![...names].some((name) => head.headers.has(name))) return head;
  const flat = head.headers.flat.filter((_, index, all) => !names.has(all[index & ~1] ?? ""));
  return { ...head, headers: new HeaderFields(flat) };
}

function outputsOf({ outputPayloadToHeader, outputClaimToHeaders }: TokenRule): string[] {
  return [...(outputPayloadToHeader === undefined ? [] : [outputPayloadToHeader]), ...outputClaimToHeaders.map(({ header }) => header)];
}

function applied(before: VerifiedRequest, { rule, found, payload }: Accepted): VerifiedRequest {
  const claims = payload as Claims;
  const forwarded = rule.forwardOriginalToken ? before.head : withoutToken(before.head, found);
  const headers = forwarded.headers.clone();
  if (rule.outputPayloadToHeader !== undefined) headers.set(rule.outputPayloadToHeader.toLowerCase(), found.token.split(".")[1] ?? "");
  for (const { header, claim } of rule.outputClaimToHeaders) {
    const value = claimText(claims, claim);
    if (value !== undefined) headers.set(header.toLowerCase(), value);
  }
  return { claims: before.claims ?? claims, head: { ...forwarded, headers } };
}

/** `a` or `a.b`; texts, numbers and truth values only, and nothing that a header cannot carry. */
function claimText(claims: Claims, path: string): string | undefined {
  let value: JsonValue | undefined = Object.hasOwn(claims, path) ? claims[path] : undefined;
  if (value === undefined) {
    value = claims;
    for (const key of path.split(".")) value = isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined;
  }
  if (typeof value !== "string" && typeof value !== "number" && typeof value !== "boolean") return undefined;
  const text = String(value);
  return /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(text) ? text : undefined;
}

function isObject(value: JsonValue | undefined): value is Claims {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
