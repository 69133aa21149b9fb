/**
 * The path of a request in one form, so that route, policy and application see the same (waypoint contract 6.1; the names of the forms are
 * those of the mesh's `pathNormalization`).
 */

/** `base`: RFC 3986 section 6.2.2. The others go further; see `normalizePath`. */
export type PathNormalization = "none" | "base" | "merge-slashes" | "decode-and-merge-slashes";

export type NormalizedPath = { readonly path: string } | { readonly refused: string };

/** Anything that `base` would change, or must refuse; `\` counts as a slash, as browsers have it. */
const suspicious = /[%\\#]|\/\.{1,2}(?:\/|$)|[^\x21-\x7e]/;
const unreserved = /^[A-Za-z0-9\-._~]$/;

/**
 * Path and query, normalised: unreserved characters decoded, `\` read as `/`, dot segments removed; with `merge-slashes` also `//` read as
 * `/`; with `decode-and-merge-slashes` also `%2F` and `%5C` read as `/`. The query is left alone. Refused: what is not an absolute path (`*`
 * aside), a fragment, a NUL, a broken escape, raw control characters and spaces.
 */
export function normalizePath(target: string, normalization: PathNormalization = "base"): NormalizedPath {
  if (target === "*") return { path: target };
  if (!target.startsWith("/")) return { refused: "the path does not begin with a slash" };
  const queryAt = target.indexOf("?");
  const rawPath = queryAt < 0 ? target : target.slice(0, queryAt);
  const query = queryAt < 0 ? "" : target.slice(queryAt);
  if (/[#\s\p{Cc}]/u.test(query)) return { refused: "the query holds a fragment, a space or a control character" };
  const decoded = suspicious.test(rawPath) ? decodePath(rawPath, normalization) : { path: rawPath };
  if ("refused" in decoded) return decoded;
  if (normalization === "none") return { path: target };
  const merges = normalization !== "base" && decoded.path.includes("//");
  const merged = merges ? decoded.path.replace(/\/{2,}/g, "/") : decoded.path;
  return { path: (merged.includes("/.") ? removeDotSegments(merged) : merged) + query };
}

/** Path without query. */
export function pathOf(target: string): string {
  const queryAt = target.indexOf("?");
  return queryAt < 0 ? target : target.slice(0, queryAt);
}

/** The first value of each parameter of a query, decoded; what does not decode is taken as it is. */
export function queryParameters(target: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  const queryAt = target.indexOf("?");
  if (queryAt < 0) return found;
  for (const pair of target.slice(queryAt + 1).split("&")) {
    const equalsAt = pair.indexOf("=");
    const name = decodeComponent(equalsAt < 0 ? pair : pair.slice(0, equalsAt));
    if (name !== "" && !found.has(name)) found.set(name, equalsAt < 0 ? "" : decodeComponent(pair.slice(equalsAt + 1)));
  }
  return found;
}

/**
 * Other forms in which an application may read a normalised path: slashes merged, escaped slashes decoded, parameters of segments (`;x=1`)
 * dropped. Empty when there is but one way to read it.
 */
export function pathVariants(path: string): readonly string[] {
  if (!path.includes("//") && !path.includes("%") && !path.includes(";")) return [];
  const further = normalizePath(path, "decode-and-merge-slashes");
  const merged = "path" in further ? further.path : path;
  const withoutParameters = removeDotSegments(merged.replace(/;[^/]*/g, "").replace(/\/{2,}/g, "/"));
  return [...new Set([merged, withoutParameters])].filter((variant) => variant !== path);
}

function decodePath(path: string, normalization: PathNormalization): NormalizedPath {
  if (path.includes("#")) return { refused: "the path holds a fragment" };
  if (/[\s\p{Cc}]/u.test(path)) return { refused: "the path holds a space or a control character" };
  let broken: string | undefined;
  const decoded = path.replaceAll("\\", "/").replace(/%(.{0,2})/g, (found, hex: string) => {
    if (!/^[0-9A-Fa-f]{2}$/.test(hex)) {
      broken = `the path holds the broken escape ${found}`;
      return found;
    }
    const code = Number.parseInt(hex, 16);
    if (code === 0) broken = "the path holds an escaped NUL";
    const character = String.fromCharCode(code);
    if (unreserved.test(character)) return character;
    return (character === "/" || character === "\\") && normalization === "decode-and-merge-slashes" ? "/" : found;
  });
  return broken === undefined ? { path: decoded } : { refused: broken };
}

/** RFC 3986 section 5.2.4; empty segments stay. */
function removeDotSegments(path: string): string {
  const kept: string[] = [];
  const segments = path.split("/").slice(1);
  for (const [index, segment] of segments.entries()) {
    const isLast = index === segments.length - 1;
    if (segment === "..") kept.pop();
    else if (segment !== ".") kept.push(segment);
    if (isLast && (segment === "." || segment === "..")) kept.push("");
  }
  return `/${kept.join("/")}`;
}

function decodeComponent(text: string): string {
  const spaced = text.replaceAll("+", " ");
  if (!spaced.includes("%")) return spaced;
  try {
    return decodeURIComponent(spaced);
  } catch {
    return spaced;
  }
}
