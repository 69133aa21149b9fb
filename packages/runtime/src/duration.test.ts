import test from "ava";
import { parseDuration } from "./duration.ts";

for (const [text, milliseconds] of [
  ["0", 0],
  ["5s", 5_000],
  ["1h30m", 5_400_000],
  ["250ms", 250],
  ["1.5s", 1_500],
  ["2us", 0.002],
] as const) {
  test(`${text} is ${milliseconds} ms`, (t) => {
    t.is(parseDuration(text), milliseconds);
  });
}

for (const text of ["", "5", "s", "5 s", "-5s", "5s junk", "1d"]) {
  test(`${JSON.stringify(text)} is not a duration`, (t) => {
    t.throws(() => parseDuration(text), { code: "RUNTIME_BAD_DURATION" });
  });
}
