/**
 * Conditions of request policies to and from Envoy's RBAC, where permissions speak of the request and principals of the client (waypoint
 * contract 2.2, 2.7). What may stand in both - headers, paths, claims - stands with the permissions unless a client's condition needs it.
 */
import type { HeaderMatch, RequestCondition } from "@fairway/model";
import * as wire from "../gen/resources/envoy/config/rbac/v3/rbac.ts";
import { FilterStateMatcher } from "../gen/resources/envoy/type/matcher/v3/filter_state.ts";
import { MetadataMatcher, MetadataMatcher_PathSegment } from "../gen/resources/envoy/type/matcher/v3/metadata.ts";
import { PathMatcher } from "../gen/resources/envoy/type/matcher/v3/path.ts";
import { OrMatcher, ValueMatcher } from "../gen/resources/envoy/type/matcher/v3/value.ts";
import { Int32Range } from "../gen/resources/envoy/type/v3/range.ts";
import type { Place } from "./place.ts";
import { headerMatchFromWire, headerMatchToWire, textMatchFromWire, textMatchToWire } from "./text-match-codec.ts";
import { cidrFromWire, cidrToWire } from "./values.ts";

/** Where the identity of the client is found behind the tunnel (waypoint contract 2.6). */
const principalKey = "io.istio.peer_principal";
/** Where the token filter puts the payload it verified. */
const tokenFilter = "envoy.filters.http.jwt_authn";
export const payloadKey = "payload";

type ClientCondition = Extract<RequestCondition, { kind: "principal" | "source-ip" | "remote-ip" }>;
type DestinationCondition = Extract<RequestCondition, { kind: "destination-ip" | "destination-port" | "server-name" }>;
type NeutralCondition = Extract<RequestCondition, { kind: "any" | "header" | "path" | "claim" }>;
type Claim = Extract<RequestCondition, { kind: "claim" }>;

/** Of a tree: whether it speaks of the client, of the destination, of both, or of what both can say. */
export type Side = "client" | "destination" | "both" | "neutral";

export function sideOf(condition: RequestCondition): Side {
  switch (condition.kind) {
    case "principal":
    case "source-ip":
    case "remote-ip":
      return "client";
    case "destination-ip":
    case "destination-port":
    case "server-name":
      return "destination";
    case "not":
      return sideOf(condition.of);
    case "all":
    case "some":
      return condition.of.map(sideOf).reduce(together, "neutral");
    default:
      return "neutral";
  }
}

function together(a: Side, b: Side): Side {
  if (a === b || b === "neutral") return a;
  return a === "neutral" ? b : "both";
}

/** `condition` must not speak of the client. */
export function permissionToWire(condition: RequestCondition): wire.Permission {
  switch (condition.kind) {
    case "all":
      return condition.of.length === 0 ? anyPermission : { rule: { $case: "andRules", value: { rules: condition.of.map(permissionToWire) } } };
    case "some":
      return condition.of.length === 0 ? noPermission : { rule: { $case: "orRules", value: { rules: condition.of.map(permissionToWire) } } };
    case "not":
      return { rule: { $case: "notRule", value: permissionToWire(condition.of) } };
    case "destination-ip":
    case "destination-port":
    case "server-name":
      return { rule: destinationToWire(condition) };
    case "principal":
    case "source-ip":
    case "remote-ip":
      throw new TypeError(`a ${condition.kind} is not a permission`);
    default:
      return { rule: neutralToWire(condition) };
  }
}

/** `condition` must not speak of the destination. */
export function principalToWire(condition: RequestCondition): wire.Principal {
  switch (condition.kind) {
    case "all":
      return condition.of.length === 0 ? anyPrincipal : { identifier: { $case: "andIds", value: { ids: condition.of.map(principalToWire) } } };
    case "some":
      return condition.of.length === 0 ? noPrincipal : { identifier: { $case: "orIds", value: { ids: condition.of.map(principalToWire) } } };
    case "not":
      return { identifier: { $case: "notId", value: principalToWire(condition.of) } };
    case "principal":
    case "source-ip":
    case "remote-ip":
      return { identifier: clientToWire(condition) };
    case "destination-ip":
    case "destination-port":
    case "server-name":
      throw new TypeError(`a ${condition.kind} is not a principal`);
    default:
      return { identifier: neutralToWire(condition) };
  }
}

export const anyPermission: wire.Permission = { rule: { $case: "any", value: true } };
export const noPermission: wire.Permission = { rule: { $case: "notRule", value: anyPermission } };
export const anyPrincipal: wire.Principal = { identifier: { $case: "any", value: true } };
export const noPrincipal: wire.Principal = { identifier: { $case: "notId", value: anyPrincipal } };

function destinationToWire(condition: DestinationCondition): NonNullable<wire.Permission["rule"]> {
  switch (condition.kind) {
    case "destination-ip":
      return { $case: "destinationIp", value: cidrToWire(condition.range) };
    case "destination-port":
      if (condition.from === condition.to) return { $case: "destinationPort", value: condition.from };
      return { $case: "destinationPortRange", value: { start: condition.from, end: condition.to + 1 } };
    case "server-name":
      return { $case: "requestedServerName", value: textMatchToWire(condition.match) };
  }
}

function clientToWire(condition: ClientCondition): NonNullable<wire.Principal["identifier"]> {
  switch (condition.kind) {
    case "principal":
      return { $case: "filterState", value: { key: principalKey, matcher: { $case: "stringMatch", value: textMatchToWire(condition.match) } } };
    case "source-ip":
      return { $case: "directRemoteIp", value: cidrToWire(condition.range) };
    case "remote-ip":
      return { $case: "remoteIp", value: cidrToWire(condition.range) };
  }
}

type Neutral = Extract<NonNullable<wire.Permission["rule"]>, { $case: "any" | "header" | "urlPath" | "metadata" }>;

function neutralToWire(condition: NeutralCondition): Neutral {
  switch (condition.kind) {
    case "any":
      return { $case: "any", value: true };
    case "header":
      return { $case: "header", value: headerMatchToWire({ name: condition.name, value: condition.match, invert: false }) };
    case "path":
      return { $case: "urlPath", value: { rule: { $case: "path", value: textMatchToWire(condition.match) } } };
    case "claim":
      return { $case: "metadata", value: claimToWire(condition) };
  }
}

/** A claim may be a text or a list of texts: both are asked for. */
function claimToWire({ path, match }: Claim): MetadataMatcher {
  const value = ValueMatcher.fromPartial({
    matchPattern: match.kind === "present" ? { $case: "presentMatch", value: true } : { $case: "orMatch", value: textOrList(textMatchToWire(match)) },
  });
  return { filter: tokenFilter, path: [payloadKey, ...path].map((key) => ({ segment: { $case: "key", value: key } })), value, invert: false };
}

function textOrList(text: ReturnType<typeof textMatchToWire>): OrMatcher {
  const one: ValueMatcher = { matchPattern: { $case: "stringMatch", value: text } };
  return { valueMatchers: [one, { matchPattern: { $case: "listMatch", value: { matchPattern: { $case: "oneOf", value: one } } } }] };
}

export function permissionFromWire(place: Place, { rule, ...rest }: wire.Permission): RequestCondition {
  place.refuseRest(wire.Permission, rest);
  switch (rule?.$case) {
    case "andRules":
      return { kind: "all", of: permissionsFromWire(place.at("and_rules"), rule.value) };
    case "orRules":
      return { kind: "some", of: permissionsFromWire(place.at("or_rules"), rule.value) };
    case "notRule":
      return { kind: "not", of: permissionFromWire(place.at("not_rule"), rule.value) };
    case "destinationIp":
      return { kind: "destination-ip", range: cidrFromWire(place.at("destination_ip"), rule.value) };
    case "destinationPort":
      return portsFromWire(place.at("destination_port"), { start: rule.value, end: rule.value + 1 });
    case "destinationPortRange":
      return portsFromWire(place.at("destination_port_range"), rule.value);
    case "requestedServerName":
      return { kind: "server-name", match: textMatchFromWire(place.at("requested_server_name"), rule.value) };
    case "any":
    case "header":
    case "urlPath":
    case "metadata":
      return neutralFromWire(place, rule);
    default:
      throw place.refuse("rule", rule);
  }
}

export function principalFromWire(place: Place, { identifier, ...rest }: wire.Principal): RequestCondition {
  place.refuseRest(wire.Principal, rest);
  switch (identifier?.$case) {
    case "andIds":
      return { kind: "all", of: principalsFromWire(place.at("and_ids"), identifier.value) };
    case "orIds":
      return { kind: "some", of: principalsFromWire(place.at("or_ids"), identifier.value) };
    case "notId":
      return { kind: "not", of: principalFromWire(place.at("not_id"), identifier.value) };
    case "filterState":
      return identityFromWire(place.at("filter_state"), identifier.value);
    case "directRemoteIp":
      return { kind: "source-ip", range: cidrFromWire(place.at("direct_remote_ip"), identifier.value) };
    case "remoteIp":
      return { kind: "remote-ip", range: cidrFromWire(place.at("remote_ip"), identifier.value) };
    case "any":
    case "header":
    case "urlPath":
    case "metadata":
      return neutralFromWire(place, identifier);
    default:
      throw place.refuse("identifier", identifier);
  }
}

function permissionsFromWire(place: Place, { rules, ...rest }: wire.Permission_Set): RequestCondition[] {
  place.refuseRest(wire.Permission_Set, rest);
  if (rules.length === 0) throw place.missing();
  return rules.map((rule) => permissionFromWire(place, rule));
}

function principalsFromWire(place: Place, { ids, ...rest }: wire.Principal_Set): RequestCondition[] {
  place.refuseRest(wire.Principal_Set, rest);
  if (ids.length === 0) throw place.missing();
  return ids.map((id) => principalFromWire(place, id));
}

/** The end of Envoy's range is outside of it. */
function portsFromWire(place: Place, { start, end, ...rest }: Int32Range): RequestCondition {
  place.refuseRest(Int32Range, rest);
  if (start < 0 || end > 65_536 || start >= end) throw place.invalid(`${start} to ${end} is not a range of ports`);
  return { kind: "destination-port", from: start, to: end - 1 };
}

function identityFromWire(place: Place, { key, matcher, ...rest }: FilterStateMatcher): RequestCondition {
  place.refuseRest(FilterStateMatcher, rest);
  if (key !== principalKey) throw place.at("key").invalid(`${JSON.stringify(key)} is not ${principalKey}`);
  if (matcher === undefined) throw place.at("matcher").missing();
  return { kind: "principal", match: textMatchFromWire(place.at("string_match"), matcher.value) };
}

function neutralFromWire(place: Place, rule: Neutral): RequestCondition {
  switch (rule.$case) {
    case "any":
      if (!rule.value) throw place.at("any").invalid("must be true");
      return { kind: "any" };
    case "header": {
      const { name, value, invert } = headerMatchFromWire(place.at("header"), rule.value);
      return invert ? invertedHeader(name, value) : { kind: "header", name, match: value };
    }
    case "urlPath": {
      const { rule: path, ...rest } = rule.value;
      place.at("url_path").refuseRest(PathMatcher, rest);
      if (path === undefined) throw place.at("url_path").missing();
      return { kind: "path", match: textMatchFromWire(place.at("url_path.path"), path.value) };
    }
    case "metadata":
      return claimFromWire(place.at("metadata"), rule.value);
  }
}

/** Envoy inverts the match of a value only where there is one. */
function invertedHeader(name: string, match: HeaderMatch["value"]): RequestCondition {
  const without: RequestCondition = { kind: "not", of: { kind: "header", name, match } };
  return match.kind === "present" ? without : { kind: "all", of: [{ kind: "header", name, match: { kind: "present" } }, without] };
}

function claimFromWire(place: Place, { filter, path, value, invert, ...rest }: MetadataMatcher): RequestCondition {
  place.refuseRest(MetadataMatcher, rest);
  if (filter !== tokenFilter) throw place.at("filter").invalid(`${JSON.stringify(filter)} is not ${tokenFilter}`);
  const [payload, ...keys] = path.map(({ segment, ...others }) => {
    place.at("path").refuseRest(MetadataMatcher_PathSegment, others);
    return place.at("path.key").required(segment?.value);
  });
  if (payload !== payloadKey || keys.length === 0) throw place.at("path").invalid(`must be ${payloadKey} and the keys of a claim`);
  const condition: RequestCondition = { kind: "claim", path: keys, match: claimValueFromWire(place.at("value"), place.at("value").required(value)) };
  return invert ? { kind: "not", of: condition } : condition;
}

/** Present, or a text or a list that has it. */
function claimValueFromWire(place: Place, { matchPattern, ...rest }: ValueMatcher): Claim["match"] {
  place.refuseRest(ValueMatcher, rest);
  switch (matchPattern?.$case) {
    case "presentMatch":
      if (!matchPattern.value) throw place.at("present_match").invalid("must be true");
      return { kind: "present" };
    case "orMatch": {
      const at = place.at("or_match");
      const { valueMatchers, ...others } = matchPattern.value;
      at.refuseRest(OrMatcher, others);
      const [text, list, third] = valueMatchers;
      if (text?.matchPattern?.$case !== "stringMatch" || list?.matchPattern?.$case !== "listMatch" || third !== undefined) {
        throw at.invalid("must be a text and a list that has the same text");
      }
      if (!isSame(list, { matchPattern: { $case: "listMatch", value: { matchPattern: { $case: "oneOf", value: text } } } })) {
        throw at.invalid("must be a text and a list that has the same text");
      }
      return textMatchFromWire(at.at("string_match"), text.matchPattern.value);
    }
    default:
      throw place.refuse("match_pattern", matchPattern);
  }
}

function isSame(a: ValueMatcher, b: ValueMatcher): boolean {
  return Buffer.compare(ValueMatcher.encode(a).finish(), ValueMatcher.encode(b).finish()) === 0;
}
