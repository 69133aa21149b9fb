/** Patterns from users: RE2 syntax, matched in linear time, so that no pattern and no text can stall a proxy (waypoint contract 3.6). */
import { RE2JS } from "re2js";
import { InvalidValueError } from "./invalid-value.ts";
import type { Pattern, TextMatch } from "./text-match.ts";

/** The longest pattern taken; characters. */
export const maxPatternLength = 1024;

/** Throws InvalidValueError for what is not RE2, or longer than `maxPatternLength`. */
export function compilePattern(source: string): Pattern {
  if (source.length > maxPatternLength) throw new InvalidValueError(`a pattern has at most ${maxPatternLength} characters, not ${source.length}`);
  const compiled = compile(source);
  return {
    source,
    matches: (text) => compiled.matches(text),
    replaceAll: (text, substitution) => compiled.matcher(text).replaceAll(toRe2jsReplacement(substitution)),
  };
}

export function textMatches(match: TextMatch, text: string): boolean {
  if (match.kind === "regex") return match.pattern.matches(text);
  const value = match.ignoreCase ? match.value.toLowerCase() : match.value;
  const candidate = match.ignoreCase ? text.toLowerCase() : text;
  switch (match.kind) {
    case "exact":
      return candidate === value;
    case "prefix":
      return candidate.startsWith(value);
    case "suffix":
      return candidate.endsWith(value);
    case "contains":
      return candidate.includes(value);
  }
}

function compile(source: string): RE2JS {
  try {
    return RE2JS.compile(source);
  } catch (thrown) {
    throw new InvalidValueError(`${JSON.stringify(source)} is not a regular expression (RE2): ${thrown instanceof Error ? thrown.message : String(thrown)}`);
  }
}

/** Envoy's `\1` and `\\` in the notation of the library, where `$` is special. */
function toRe2jsReplacement(substitution: string): string {
  return substitution.replace(/\$|\\(\d)|\\\\/g, (found, group: string | undefined) => {
    if (found === "$") return "\\$";
    return group === undefined ? "\\\\" : `$${group}`;
  });
}
