import test from "ava";
import { trimAllocator } from "./system-calls.ts";

test("memory that was allocated and freed goes back to the system", (t) => {
  const blocks = Array.from({ length: 200 }, () => Buffer.allocUnsafeSlow(100_000).fill(1));
  t.is(blocks.length, 200);
  blocks.length = 0;
  t.notThrows(trimAllocator);
  t.notThrows(trimAllocator);
});
