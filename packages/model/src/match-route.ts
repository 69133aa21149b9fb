/** Which route a request takes, and the order in which routes are tried (controller contract 5.2). */

import { pathOf, queryParameters } from "./http-path.ts";
import type { RequestHead } from "./http-request.ts";
import type { HeaderMatch, HttpRoute, PathMatch, QueryMatch, RouteMatch, RouteTable, VirtualHost } from "./http-route.ts";
import { textMatches } from "./pattern.ts";

/** Undefined: no route matches, 404. The path must be normalised. */
export function routeOf(table: RouteTable, head: RequestHead): HttpRoute | undefined {
  const path = pathOf(head.path);
  return virtualHostOf(table.virtualHosts, head.authority)?.routes.find(({ match }) => routeMatches(match, head, path));
}

/**
 * Negative when `a` goes first: exact path, then prefix, then pattern; longer paths first; then who names a method, more headers, more query
 * parameters. Equal ones keep their order (age and name of their routes), so the sort must be stable.
 */
export function compareRoutes(a: RouteMatch, b: RouteMatch): number {
  return (
    pathRank(a.path) - pathRank(b.path) ||
    pathLength(b.path) - pathLength(a.path) ||
    Number(b.method !== undefined) - Number(a.method !== undefined) ||
    b.headers.length - a.headers.length ||
    b.query.length - a.query.length
  );
}

/** By path elements; a slash at the end of the prefix means nothing. */
export function hasPathPrefix(path: string, prefix: string): boolean {
  const trimmed = prefix.endsWith("/") ? prefix.slice(0, -1) : prefix;
  return path.startsWith(trimmed) && (path.length === trimmed.length || path[trimmed.length] === "/");
}

function routeMatches(match: RouteMatch, head: RequestHead, path: string): boolean {
  if (!pathMatches(match.path, path)) return false;
  if (match.method !== undefined && match.method !== head.method) return false;
  if (match.grpc && !isGrpc(head)) return false;
  for (const header of match.headers) if (!headerMatches(header, head)) return false;
  return match.query.length === 0 || queryMatches(match.query, head);
}

/** Whether the request speaks gRPC, by its content-type. */
export function isGrpc({ headers }: Pick<RequestHead, "headers">): boolean {
  const type = headers.get("content-type");
  return type !== undefined && /^application\/grpc(?:$|[+;])/.test(type);
}

function pathMatches(match: PathMatch, path: string): boolean {
  switch (match.kind) {
    case "exact":
      return path === match.value;
    case "path-prefix":
      return hasPathPrefix(path, match.value);
    case "prefix":
      return path.startsWith(match.value);
    case "regex":
      return match.pattern.matches(path);
  }
}

/** Only the first of repeated fields counts (Gateway API). `:authority` and `:method` may be asked for as well. */
function headerMatches({ name, value, invert }: HeaderMatch, head: RequestHead): boolean {
  const found = name === ":authority" ? head.authority : name === ":method" ? head.method : head.headers.get(name);
  const holds = found !== undefined && (value.kind === "present" || textMatches(value, found));
  return holds !== invert;
}

function queryMatches(matches: readonly QueryMatch[], head: RequestHead): boolean {
  const parameters = queryParameters(head.path);
  return matches.every(({ name, value }) => {
    const found = parameters.get(name);
    return found !== undefined && (value.kind === "present" || textMatches(value, found));
  });
}

function virtualHostOf(hosts: readonly VirtualHost[], authority: string): VirtualHost | undefined {
  let best: VirtualHost | undefined;
  let bestRank = -1;
  const wanted = authority.toLowerCase();
  for (const host of hosts) {
    for (const domain of host.domains) {
      const rank = domainRank(domain.toLowerCase(), wanted);
      if (rank > bestRank) [best, bestRank] = [host, rank];
    }
  }
  return best;
}

/** Exact before suffix before prefix before `*`, longer before shorter; -1 when it does not match. */
function domainRank(domain: string, authority: string): number {
  if (domain === "*") return 0;
  if (domain === authority) return 3_000_000;
  if (authority.length < domain.length) return -1;
  if (domain.startsWith("*") && authority.endsWith(domain.slice(1))) return 2_000_000 + domain.length;
  if (domain.endsWith("*") && authority.startsWith(domain.slice(0, -1))) return 1_000_000 + domain.length;
  return -1;
}

function pathRank({ kind }: PathMatch): number {
  return kind === "exact" ? 0 : kind === "regex" ? 2 : 1;
}

function pathLength(match: PathMatch): number {
  return match.kind === "regex" ? match.pattern.source.length : match.value.length;
}
