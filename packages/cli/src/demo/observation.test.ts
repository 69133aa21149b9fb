import test from "ava";
import { Observations } from "./observation.ts";

test("a claim that cannot be measured does not hold, and neither does an empty demo", async (t) => {
  const observations = new Observations(() => undefined);
  t.false(observations.allHold);
  await observations.observe("one", "it works", () => Promise.resolve({ observed: "200", holds: true }));
  t.true(observations.allHold);
  await observations.observe("two", "it works too", () => Promise.reject(new Error("no capture")));
  t.false(observations.allHold);
  t.is(observations.all[1]?.observed, "could not be measured: no capture");
  t.regex(observations.toTable(), /it works too +could not be measured/);
});
