import test from "ava";
import { table } from "./output.ts";

test("columns are as wide as their widest cell, whatever its colour", (t) => {
  const lines = table(
    ["a", "b"],
    [
      ["\u001b[32m✔\u001b[39m", "long cell"],
      ["wide cell", "x"],
    ],
  ).split("\n");
  t.deepEqual(
    // biome-ignore lint/suspicious/noControlCharactersInRegex: colour sequences begin with the escape character
    lines.map((line) => line.replace(/\u001b\[\d+m/g, "")),
    ["a          b", "✔          long cell", "wide cell  x", ""],
  );
});
