/** Token rules to and from Envoy's jwt_authn filter: any valid token passes, none passes as well, an invalid one never (controller contract 4.8). */
import type { TokenRule } from "@fairway/model";
import { HttpUri } from "../gen/resources/envoy/config/core/v3/http_uri.ts";
import * as wire from "../gen/resources/envoy/extensions/filters/http/jwt_authn/v3/config.ts";
import { payloadKey } from "./condition-codec.ts";
import type { Place } from "./place.ts";
import { matchFromWire } from "./route-codec.ts";
import { durationFromWire, durationToWire, inlineText, inlineTextFromWire } from "./values.ts";

/** Envoy's, where nothing is said. */
const defaultFetchTimeoutMs = 1_000;

export function tokensToWire(tokens: readonly TokenRule[]): wire.JwtAuthentication {
  const providers = new Map(tokens.map((token, index) => [`${token.origin}|${index}`, providerToWire(token)]));
  const requirements: wire.JwtRequirement[] = [...providers.keys()].map((name) => ({ requiresType: { $case: "providerName", value: name } }));
  return wire.JwtAuthentication.fromPartial({
    providers,
    rules: [
      {
        match: { pathSpecifier: { $case: "prefix", value: "/" } },
        requirementType: {
          $case: "requires",
          value: { requiresType: { $case: "requiresAny", value: { requirements: [...requirements, { requiresType: { $case: "allowMissing", value: {} } }] } } },
        },
      },
    ],
  });
}

export function tokensFromWire(place: Place, { providers, rules, ...rest }: wire.JwtAuthentication): TokenRule[] {
  place.refuseRest(wire.JwtAuthentication, rest);
  const keyed = [...providers].map(([key, provider]) => providerFromWire(place.at("providers"), key, provider));
  checkRequirements(place.at("rules"), [...providers.keys()], rules);
  return keyed.sort((a, b) => a.index - b.index).map(({ token }) => token);
}

function providerToWire(token: TokenRule): wire.JwtProvider {
  return wire.JwtProvider.fromPartial({
    issuer: token.issuer,
    audiences: token.audiences,
    jwksSourceSpecifier: keysToWire(token.keys),
    forward: token.forwardOriginalToken,
    fromHeaders: token.fromHeaders.map(({ name, prefix }) => ({ name, valuePrefix: prefix })),
    fromParams: token.fromParams,
    fromCookies: token.fromCookies,
    forwardPayloadHeader: token.outputPayloadToHeader ?? "",
    payloadInMetadata: payloadKey,
    claimToHeaders: token.outputClaimToHeaders.map(({ header, claim }) => ({ headerName: header, claimName: claim })),
  });
}

/** The order of the rules is the index at the end of their keys. */
function providerFromWire(place: Place, key: string, message: wire.JwtProvider): { readonly index: number; readonly token: TokenRule } {
  const at = place.at(JSON.stringify(key));
  const [, origin, index] = /^([^|]+)\|(\d{1,6})$/.exec(key) ?? [];
  if (origin === undefined) throw at.invalid("must be <namespace>/<name>|<index>");
  const { issuer, audiences, jwksSourceSpecifier, forward, fromHeaders, fromParams, fromCookies, forwardPayloadHeader, ...more } = message;
  const { payloadInMetadata, claimToHeaders, ...rest } = more;
  at.refuseRest(wire.JwtProvider, rest);
  if (payloadInMetadata !== payloadKey) throw at.at("payload_in_metadata").invalid(`must be ${payloadKey}`);
  const token: TokenRule = {
    origin,
    issuer: at.at("issuer").required(issuer),
    audiences,
    keys: keysFromWire(at, jwksSourceSpecifier),
    fromHeaders: fromHeaders.map(({ name, valuePrefix, ...others }) => {
      at.at("from_headers").refuseRest(wire.JwtHeader, others);
      return { name: at.at("from_headers.name").required(name), prefix: valuePrefix };
    }),
    fromParams,
    fromCookies,
    forwardOriginalToken: forward,
    outputPayloadToHeader: forwardPayloadHeader === "" ? undefined : forwardPayloadHeader,
    outputClaimToHeaders: claimToHeaders.map(({ headerName, claimName, ...others }) => {
      at.at("claim_to_headers").refuseRest(wire.JwtClaimToHeader, others);
      return { header: headerName, claim: claimName };
    }),
  };
  return { index: Number(index), token };
}

/** Envoy wants the name of a cluster beside the address; it is the one that a service of that name and port would have. */
function keysToWire(keys: TokenRule["keys"]): NonNullable<wire.JwtProvider["jwksSourceSpecifier"]> {
  if (keys.kind === "inline") return { $case: "localJwks", value: inlineText(keys.jwks) };
  const httpUri: HttpUri = {
    uri: keys.uri,
    httpUpstreamType: { $case: "cluster", value: clusterOf(keys.uri) },
    timeout: durationToWire(keys.timeoutMs),
  };
  return { $case: "remoteJwks", value: wire.RemoteJwks.fromPartial({ httpUri }) };
}

function clusterOf(uri: string): string {
  const url = URL.parse(uri);
  const port = url?.port || (url?.protocol === "http:" ? "80" : "443");
  return `outbound|${port}||${url?.hostname ?? ""}`;
}

function keysFromWire(place: Place, source: wire.JwtProvider["jwksSourceSpecifier"]): TokenRule["keys"] {
  switch (source?.$case) {
    case "localJwks":
      return { kind: "inline", jwks: inlineTextFromWire(place.at("local_jwks"), source.value) };
    case "remoteJwks": {
      const at = place.at("remote_jwks");
      const { httpUri, ...rest } = source.value;
      at.refuseRest(wire.RemoteJwks, rest);
      const { uri, timeout, ...others } = at.at("http_uri").required(httpUri);
      at.at("http_uri").refuseRest(HttpUri, others, { httpUpstreamType: "keys are fetched from the address itself" });
      const timeoutMs = timeout === undefined ? defaultFetchTimeoutMs : durationFromWire(at.at("http_uri.timeout"), timeout);
      return { kind: "remote", uri: at.at("http_uri.uri").required(uri), timeoutMs };
    }
    default:
      throw place.refuse("jwks_source_specifier", source);
  }
}

/** One rule for every path: any of the providers, or no token at all. */
function checkRequirements(place: Place, providers: readonly string[], rules: readonly wire.RequirementRule[]): void {
  const [rule, second] = rules;
  if (rule === undefined) throw place.missing();
  if (second !== undefined) throw place.invalid("only one rule is supported");
  const { match, requirementType, ...rest } = rule;
  place.refuseRest(wire.RequirementRule, rest);
  const { path, method, headers, query, grpc } = matchFromWire(place.at("match"), place.at("match").required(match));
  if (path.kind !== "prefix" || path.value !== "/" || method !== undefined || headers.length + query.length > 0 || grpc) {
    throw place.at("match").invalid("only a rule for every request is supported");
  }
  if (requirementType?.$case !== "requires") throw place.refuse("requirement_type", requirementType);
  const { requiresType, ...others } = requirementType.value;
  place.at("requires").refuseRest(wire.JwtRequirement, others);
  if (requiresType?.$case !== "requiresAny") throw place.at("requires").refuse("requires_type", requiresType);
  place.at("requires.requires_any").refuseRest(wire.JwtRequirementOrList, { ...requiresType.value, requirements: [] });
  const named = requiresType.value.requirements.map((each) => requirementName(place.at("requires.requires_any"), each));
  const expected = [...providers, undefined];
  if (named.length !== expected.length || !expected.every((name) => named.includes(name))) {
    throw place.at("requires.requires_any").invalid("must name every provider once, and allow_missing");
  }
}

/** Undefined for allow_missing. */
function requirementName(place: Place, { requiresType, ...rest }: wire.JwtRequirement): string | undefined {
  place.refuseRest(wire.JwtRequirement, rest);
  if (requiresType?.$case === "providerName") return requiresType.value;
  if (requiresType?.$case === "allowMissing") return undefined;
  throw place.refuse("requires_type", requiresType);
}
