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
    replaceAll: (text, substitution) => replaceAll(compiled, text, substitution),
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

/** Envoy's notation: `\1` is a group, empty when there is none, `\\` a backslash, and all else stands for itself. */
function replaceAll(compiled: RE2JS, text: string, substitution: string): string {
  const matcher = compiled.matcher(text);
  const groups = compiled.groupCount();
  let replaced = "";
  let end = 0;
  while (matcher.find()) {
    const group = (digit: string): string => (Number(digit) > groups ? "" : (matcher.group(Number(digit)) ?? ""));
    const replacement = substitution.replace(/\\(?:(\d)|\\)/g, (_found, digit: string | undefined) => (digit === undefined ? "\\" : group(digit)));
    replaced += text.slice(end, matcher.start()) + replacement;
    end = matcher.end();
  }
  return replaced + text.slice(end);
}
