/** Texts, headers, query parameters and patterns: Envoy's matchers to and from the model (waypoint contract 2.2). */
import { compilePattern, type HeaderMatch, type Pattern, type QueryMatch, type TextMatch } from "@fairway/model";
import * as route from "../gen/resources/envoy/config/route/v3/route_components.ts";
import * as regex from "../gen/resources/envoy/type/matcher/v3/regex.ts";
import { StringMatcher } from "../gen/resources/envoy/type/matcher/v3/string.ts";
import type { Place } from "./place.ts";

export function textMatchToWire(match: TextMatch): StringMatcher {
  if (match.kind === "regex") return { matchPattern: { $case: "safeRegex", value: patternToWire(match.pattern) }, ignoreCase: false };
  return { matchPattern: { $case: match.kind, value: match.value }, ignoreCase: match.ignoreCase ?? false };
}

export function textMatchFromWire(place: Place, { matchPattern, ignoreCase, ...rest }: StringMatcher): TextMatch {
  place.refuseRest(StringMatcher, rest);
  if (matchPattern === undefined || matchPattern.$case === "custom") throw place.refuse("match_pattern", matchPattern);
  if (matchPattern.$case !== "safeRegex") return { kind: matchPattern.$case, value: matchPattern.value, ...(ignoreCase && { ignoreCase }) };
  if (ignoreCase) throw place.at("ignore_case").invalid("has no meaning for a regular expression");
  return { kind: "regex", pattern: patternFromWire(place.at("safe_regex"), matchPattern.value) };
}

export function patternToWire({ source }: Pattern): regex.RegexMatcher {
  return { engineType: undefined, regex: source };
}

export function patternFromWire(place: Place, { regex: source, ...rest }: regex.RegexMatcher): Pattern {
  place.refuseRest(regex.RegexMatcher, rest, { engineType: "RE2 is the only engine there is" });
  return place.parse(() => compilePattern(source));
}

export interface Substitution {
  readonly pattern: Pattern;
  readonly substitution: string;
}

export function substitutionToWire({ pattern, substitution }: Substitution): regex.RegexMatchAndSubstitute {
  return { pattern: patternToWire(pattern), substitution };
}

export function substitutionFromWire(place: Place, message: regex.RegexMatchAndSubstitute): Substitution {
  const { pattern, substitution, ...rest } = message;
  place.refuseRest(regex.RegexMatchAndSubstitute, rest);
  return { pattern: patternFromWire(place.at("pattern"), place.at("pattern").required(pattern)), substitution };
}

export function headerMatchToWire({ name, value, invert }: HeaderMatch): route.HeaderMatcher {
  return {
    name,
    headerMatchSpecifier: value.kind === "present" ? { $case: "presentMatch", value: true } : { $case: "stringMatch", value: textMatchToWire(value) },
    invertMatch: invert,
    treatMissingHeaderAsEmpty: false,
  };
}

/** `present_match: false` asks for absence, which is the inverse of presence. */
export function headerMatchFromWire(place: Place, { name, headerMatchSpecifier, invertMatch, ...rest }: route.HeaderMatcher): HeaderMatch {
  place.refuseRest(route.HeaderMatcher, rest);
  place.at("name").required(name);
  switch (headerMatchSpecifier?.$case) {
    case undefined:
      return { name, value: { kind: "present" }, invert: invertMatch };
    case "presentMatch":
      return { name, value: { kind: "present" }, invert: headerMatchSpecifier.value === invertMatch };
    case "stringMatch":
      return { name, value: textMatchFromWire(place.at("string_match"), headerMatchSpecifier.value), invert: invertMatch };
    default:
      throw place.refuse("header_match_specifier", headerMatchSpecifier);
  }
}

export function queryMatchToWire({ name, value }: QueryMatch): route.QueryParameterMatcher {
  return {
    name,
    queryParameterMatchSpecifier: value.kind === "present" ? { $case: "presentMatch", value: true } : { $case: "stringMatch", value: textMatchToWire(value) },
  };
}

export function queryMatchFromWire(place: Place, { name, queryParameterMatchSpecifier, ...rest }: route.QueryParameterMatcher): QueryMatch {
  place.refuseRest(route.QueryParameterMatcher, rest);
  place.at("name").required(name);
  if (queryParameterMatchSpecifier?.$case === "stringMatch") {
    return { name, value: textMatchFromWire(place.at("string_match"), queryParameterMatchSpecifier.value) };
  }
  if (queryParameterMatchSpecifier?.value === false) throw place.at("present_match").invalid("absence of a parameter cannot be asked for");
  return { name, value: { kind: "present" } };
}
