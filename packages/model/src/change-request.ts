/** What a route changes: header fields, authority and path, and where a redirect points (controller contract 5.3). */
import type { HeaderFields } from "./header-fields.ts";
import { pathOf } from "./http-path.ts";
import type { RequestHead } from "./http-request.ts";
import type { HeaderChanges, HttpRoute, PathChange, Redirect } from "./http-route.ts";

const defaultPorts: Readonly<Record<string, number>> = { http: 80, https: 443 };

/** Set, add, remove, in this order. The same object when there is nothing to change. */
export function changedHeaders(headers: HeaderFields, { set, add, remove }: HeaderChanges): HeaderFields {
  if (set.length === 0 && add.length === 0 && remove.length === 0) return headers;
  const changed = headers.clone();
  for (const { name, value } of set) changed.set(name.toLowerCase(), value);
  for (const { name, value } of add) changed.append(name.toLowerCase(), value);
  for (const name of remove) changed.delete(name.toLowerCase());
  return changed;
}

/** The head as the route sends it upstream: rewritten; the headers are not touched. The same object when nothing changes. */
export function rewritten(head: RequestHead, { match, action }: HttpRoute): RequestHead {
  if (action.kind !== "forward" || action.rewrite === undefined) return head;
  const { authority, path } = action.rewrite;
  return { ...head, authority: authority ?? head.authority, path: path === undefined ? head.path : changedPath(head.path, path, match.path) };
}

/** An absolute URI. The port is left out when it is the scheme's own; the request's port stays unless the scheme or the port is given. */
export function redirectLocation(head: RequestHead, { match }: HttpRoute, redirect: Redirect): string {
  const { hostname, port } = splitAuthority(head.authority);
  const scheme = redirect.scheme ?? head.scheme;
  const wantedPort = redirect.port ?? (redirect.scheme === undefined ? port : undefined);
  const shownPort = wantedPort === undefined || wantedPort === defaultPorts[scheme] ? "" : `:${wantedPort}`;
  const path = redirect.path === undefined ? head.path : changedPath(head.path, redirect.path, match.path);
  return `${scheme}://${redirect.hostname ?? hostname}${shownPort}${path}`;
}

/** `[::1]:80` → `[::1]` and 80; what has no port, or none that is a number, is all host name. */
export function splitAuthority(authority: string): { readonly hostname: string; readonly port: number | undefined } {
  const match = /^(\[[^\]]*\]|[^:]*):(\d{1,5})$/.exec(authority);
  return match === null ? { hostname: authority, port: undefined } : { hostname: match[1] ?? "", port: Number(match[2]) };
}

function changedPath(target: string, change: PathChange, match: HttpRoute["match"]["path"]): string {
  const path = pathOf(target);
  const query = target.slice(path.length);
  switch (change.kind) {
    case "full":
      return change.value + query;
    case "regex":
      return change.pattern.replaceAll(path, change.substitution) + query;
    case "prefix":
      return replacedPrefix(path, match, change.value) + query;
  }
}

/** No slash is doubled and none is lost: `/a/b` with `/a` replaced by `/` is `/b`. */
function replacedPrefix(path: string, match: HttpRoute["match"]["path"], replacement: string): string {
  if (match.kind === "prefix") return replacement + path.slice(match.value.length);
  if (match.kind === "regex") return replacement;
  const prefix = match.value.endsWith("/") ? match.value.slice(0, -1) : match.value;
  const rest = path.slice(prefix.length);
  const base = replacement.endsWith("/") ? replacement.slice(0, -1) : replacement;
  return base + rest === "" ? "/" : base + rest;
}
