import test from "ava";
import fc from "fast-check";
import { compilePattern } from "./pattern.ts";

const replacements: readonly (readonly [pattern: string, text: string, substitution: string, result: string])[] = [
  ["^/a/(.*)$", "/a/b$c", "/x/\\1", "/x/b$c"],
  ["(a)(b)?", "ab-a", "[\\2\\1]", "[ba]-[a]"],
  ["a", "banana", "\\0\\0", "baanaanaa"],
  ["(a)", "a", "\\12", "a2"],
  ["(a)", "a", "\\9", ""],
  ["(a)", "a", "$1 $$ $&", "$1 $$ $&"],
  ["(a)", "a", "\\\\1 \\x \\", "\\1 \\x \\"],
  ["x*", "ab", "-", "-a-b-"],
  ["é(.)", "né🙂x", "\\1", "n🙂x"],
];

for (const [pattern, text, substitution, result] of replacements) {
  test(`${pattern} in ${text} replaced by ${substitution} makes ${result}`, (t) => {
    t.is(compilePattern(pattern).replaceAll(text, substitution), result);
  });
}

test("no substitution and no text make a pattern throw", (t) => {
  const notation = fc.array(fc.constantFrom("\\", "$", "0", "1", "9", "{", "}", "&", "a", "🙂"), { maxLength: 6 }).map((parts) => parts.join(""));
  const patterns = ["(a)|()", "a*", "(.)(1)?", "$", "^"].map(compilePattern);
  fc.assert(
    fc.property(fc.constantFrom(...patterns), notation, notation, (pattern, text, substitution) =>
      t.is(typeof pattern.replaceAll(text, substitution), "string"),
    ),
  );
});
