/** Header changes to and from Envoy's lists of additions and removals. */
import type { HeaderChanges, HeaderValue } from "@fairway/model";
import * as base from "../gen/resources/envoy/config/core/v3/base.ts";
import type { Place } from "./place.ts";

const { APPEND_IF_EXISTS_OR_ADD, OVERWRITE_IF_EXISTS_OR_ADD } = base.HeaderValueOption_HeaderAppendAction;

export interface HeaderChangesOnWire {
  readonly requestHeadersToAdd: readonly base.HeaderValueOption[];
  readonly requestHeadersToRemove: readonly string[];
  readonly responseHeadersToAdd: readonly base.HeaderValueOption[];
  readonly responseHeadersToRemove: readonly string[];
}

export function headerChangesToWire(request: HeaderChanges, response: HeaderChanges): HeaderChangesOnWire {
  return {
    requestHeadersToAdd: additionsToWire(request),
    requestHeadersToRemove: request.remove,
    responseHeadersToAdd: additionsToWire(response),
    responseHeadersToRemove: response.remove,
  };
}

export function headerChangesFromWire(
  place: Place,
  wire: HeaderChangesOnWire,
): { readonly requestHeaders: HeaderChanges; readonly responseHeaders: HeaderChanges } {
  return {
    requestHeaders: { ...additionsFromWire(place.at("request_headers_to_add"), wire.requestHeadersToAdd), remove: wire.requestHeadersToRemove },
    responseHeaders: { ...additionsFromWire(place.at("response_headers_to_add"), wire.responseHeadersToAdd), remove: wire.responseHeadersToRemove },
  };
}

export function areNoChanges({ set, add, remove }: HeaderChanges): boolean {
  return set.length + add.length + remove.length === 0;
}

function additionsToWire({ set, add }: HeaderChanges): base.HeaderValueOption[] {
  return [...set.map((header) => additionToWire(header, OVERWRITE_IF_EXISTS_OR_ADD)), ...add.map((header) => additionToWire(header, APPEND_IF_EXISTS_OR_ADD))];
}

/** Envoy expands `%…%` in values; ours are literal, and `%%` is its escape. */
function additionToWire({ name, value }: HeaderValue, appendAction: base.HeaderValueOption_HeaderAppendAction): base.HeaderValueOption {
  return {
    header: { key: name, value: value.replaceAll("%", "%%"), rawValue: new Uint8Array() },
    append: undefined,
    appendAction,
    keepEmptyValue: value === "",
  };
}

function additionsFromWire(place: Place, options: readonly base.HeaderValueOption[]): Pick<HeaderChanges, "set" | "add"> {
  const set: HeaderValue[] = [];
  const add: HeaderValue[] = [];
  for (const { header, appendAction, keepEmptyValue, ...rest } of options) {
    place.refuseRest(base.HeaderValueOption, rest);
    const { key, value, ...others } = place.at("header").required(header);
    place.at("header").refuseRest(base.HeaderValue, others);
    const at = place.at(JSON.stringify(place.at("key").required(key)));
    if (value === "" && !keepEmptyValue) throw at.invalid("an empty value without keep_empty_value");
    const literal = { name: key, value: unescaped(at, value) };
    if (appendAction === APPEND_IF_EXISTS_OR_ADD) add.push(literal);
    else if (appendAction !== OVERWRITE_IF_EXISTS_OR_ADD) throw at.at("append_action").unknownEnum(appendAction);
    else if (add.some(({ name }) => name.toLowerCase() === key.toLowerCase())) throw at.invalid("set after it was added to");
    else set.push(literal);
  }
  return { set, add };
}

function unescaped(place: Place, value: string): string {
  const literal = value.replaceAll("%%", "");
  if (literal.includes("%")) throw place.invalid(`${JSON.stringify(value)} has a variable, and values are literal`);
  return value.replaceAll("%%", "%");
}
