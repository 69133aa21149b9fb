/** How texts are compared in routes and request policies (Envoy's StringMatcher). Patterns are RE2 and match the whole text in linear time. */

export type TextMatch =
  | { readonly kind: "exact"; readonly value: string; readonly ignoreCase?: boolean }
  | { readonly kind: "prefix"; readonly value: string; readonly ignoreCase?: boolean }
  | { readonly kind: "suffix"; readonly value: string; readonly ignoreCase?: boolean }
  | { readonly kind: "contains"; readonly value: string; readonly ignoreCase?: boolean }
  | { readonly kind: "regex"; readonly pattern: Pattern };

/** A compiled pattern; made by `compilePattern`. */
export interface Pattern {
  /** As the user wrote it. */
  readonly source: string;
  /** Whether the whole text matches. */
  matches(text: string): boolean;
  /** Replaces every match; `\1` … name groups, as in Envoy's RegexMatchAndSubstitute. */
  replaceAll(text: string, substitution: string): string;
}
