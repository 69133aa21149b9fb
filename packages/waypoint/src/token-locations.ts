/** Where a request carries its tokens, and how they leave it (controller contract 4.8). Pure. */
import { HeaderFields, type RequestHead, type TokenRule } from "@fairway/model";

/** One token at one place. */
export interface FoundToken {
  readonly token: string;
  readonly location:
    | { readonly kind: "header"; readonly name: string; readonly value: string }
    | { readonly kind: "param"; readonly name: string }
    | { readonly kind: "cookie" };
}

const defaultHeaders: TokenRule["fromHeaders"] = [{ name: "authorization", prefix: "Bearer " }];
const defaultParams: TokenRule["fromParams"] = ["access_token"];

/** Every token that `rule` looks for; the default places only where the rule names none of its own. */
export function tokensOf(rule: TokenRule, head: RequestHead): FoundToken[] {
  const ownPlaces = rule.fromHeaders.length + rule.fromParams.length + rule.fromCookies.length > 0;
  const headers = ownPlaces ? rule.fromHeaders : defaultHeaders;
  const params = ownPlaces ? rule.fromParams : defaultParams;
  return [
    ...headers.flatMap(({ name, prefix }) => inHeader(head, name.toLowerCase(), prefix)),
    ...params.flatMap((name) => inQuery(head.path, name).map((token): FoundToken => ({ token, location: { kind: "param", name } }))),
    ...rule.fromCookies.flatMap((name) => inCookies(head, name).map((token): FoundToken => ({ token, location: { kind: "cookie" } }))),
  ];
}

/** The request without that token: what the application must not see. Cookies stay; they are the application's. */
export function withoutToken(head: RequestHead, { location }: FoundToken): RequestHead {
  switch (location.kind) {
    case "header": {
      const flat = head.headers.flat.filter((_, index, all) => all[index & ~1] !== location.name || all[index | 1] !== location.value);
      return { ...head, headers: new HeaderFields(flat) };
    }
    case "param":
      return { ...head, path: withoutParameter(head.path, location.name) };
    case "cookie":
      return head;
  }
}

function inHeader({ headers }: RequestHead, name: string, prefix: string): FoundToken[] {
  return headers.getAll(name).flatMap((value): FoundToken[] => {
    // The scheme of Authorization is read in any case (RFC 9110 11.1); other prefixes are the user's own text.
    const matches = name === "authorization" ? value.toLowerCase().startsWith(prefix.toLowerCase()) : value.startsWith(prefix);
    const token = matches ? value.slice(prefix.length).trim() : "";
    return token === "" ? [] : [{ token, location: { kind: "header", name, value } }];
  });
}

function inQuery(target: string, name: string): string[] {
  const queryAt = target.indexOf("?");
  if (queryAt < 0) return [];
  return new URLSearchParams(target.slice(queryAt + 1)).getAll(name).filter((token) => token !== "");
}

function inCookies({ headers }: RequestHead, name: string): string[] {
  return headers
    .getAll("cookie")
    .flatMap((line) => line.split(";"))
    .flatMap((pair) => {
      const equals = pair.indexOf("=");
      return equals > 0 && pair.slice(0, equals).trim() === name ? [pair.slice(equals + 1).trim()] : [];
    })
    .filter((token) => token !== "");
}

/** The other parameters stay as they were written. */
function withoutParameter(target: string, name: string): string {
  const queryAt = target.indexOf("?");
  if (queryAt < 0) return target;
  const kept = target
    .slice(queryAt + 1)
    .split("&")
    .filter((pair) => [...new URLSearchParams(pair).keys()][0] !== name);
  const path = target.slice(0, queryAt);
  return kept.length === 0 ? path : `${path}?${kept.join("&")}`;
}
