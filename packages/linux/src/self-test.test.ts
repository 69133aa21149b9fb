import test from "ava";
import { selfTest } from "./self-test.ts";
import { skipped } from "./test-namespaces.ts";

test("the self-test passes where the privileges are there", async (t) => {
  if (skipped(t)) return;
  await t.notThrowsAsync(selfTest({ poolSize: 8 }));
});
