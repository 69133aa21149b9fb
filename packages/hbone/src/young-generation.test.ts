/** The setting must be one that this V8 knows and obeys. */
import { spawnSync } from "node:child_process";
import test from "ava";

const module = new URL("./young-generation.js", import.meta.url).href;
const script = `
import { PerformanceObserver, constants } from "node:perf_hooks";
import { collectYoungObjectsEarly } from ${JSON.stringify(module)};
if (process.argv[1] === "early") collectYoungObjectsEarly();
let count = 0;
new PerformanceObserver((list) => {
  for (const { detail } of list.getEntries()) if (detail.kind === constants.NODE_PERFORMANCE_GC_MINOR) count += 1;
}).observe({ entryTypes: ["gc"] });
const kept = [];
for (let turn = 0; turn < 2_000; turn++) {
  for (let index = 0; index < 100; index++) kept[index] = { index, text: "x" + index };
  await new Promise((resolve) => setImmediate(resolve));
}
console.log(count);
`;

function youngCollections(mode: "early" | "default"): number {
  const { stdout, stderr, status } = spawnSync(process.execPath, ["--input-type=module", "-e", script, mode], { encoding: "utf8" });
  if (status !== 0 || stderr !== "") throw new Error(`the script failed: ${stderr}`);
  return Number(stdout);
}

test("young objects are collected several times as often as by default", (t) => {
  const [early, usual] = [youngCollections("early"), youngCollections("default")];
  t.true(early >= 3 * Math.max(usual, 1), `${early} collections early, ${usual} by default`);
});
