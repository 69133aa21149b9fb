/** The settings must be ones that this V8 knows and obeys. */
import { spawnSync } from "node:child_process";
import test from "ava";

const module = new URL("./young-generation.js", import.meta.url).href;
const counting = `
import { PerformanceObserver, constants } from "node:perf_hooks";
import { collectYoungObjectsEarly, noteBuffer } from ${JSON.stringify(module)};
let count = 0;
new PerformanceObserver((list) => {
  for (const { detail } of list.getEntries()) if (detail.kind === constants.NODE_PERFORMANCE_GC_MINOR) count += 1;
}).observe({ entryTypes: ["gc"] });
const turn = () => new Promise((resolve) => setImmediate(resolve));
`;

const manyObjects = `${counting}
if (process.argv[1] === "early") collectYoungObjectsEarly(5);
const kept = [];
for (let index = 0; index < 200_000; index++) {
  kept[index % 100] = { index, text: "x" + index };
  if (index % 100 === 0) await turn();
}
console.log(count);
`;

const manyBytes = `${counting}
for (let chunk = 0; chunk < 2_560; chunk++) {
  noteBuffer(64 * 1024);
  await turn();
}
console.log(count);
`;

const threaded = `
import { Worker } from "node:worker_threads";
import { collectYoungObjectsByBytes } from ${JSON.stringify(module)};
if (process.argv[1] === "by bytes") collectYoungObjectsByBytes();
new Worker(new URL("data:text/javascript," + encodeURIComponent(${JSON.stringify(manyBytes)})));
`;

function youngCollections(script: string, ...args: readonly string[]): number {
  const { stdout, stderr, status } = spawnSync(process.execPath, ["--input-type=module", "-e", script, ...args], { encoding: "utf8" });
  if (status !== 0 || stderr !== "") throw new Error(`the script failed: ${stderr}`);
  return Number(stdout);
}

test("young objects are collected several times as often as by default", (t) => {
  const [early, usual] = [youngCollections(manyObjects, "early"), youngCollections(manyObjects)];
  t.true(early >= 3 * Math.max(usual, 1), `${early} collections early, ${usual} by default`);
});

test("a thread collects young objects for every few megabytes of buffers, and leaves it to V8 unless told", (t) => {
  const [byBytes, usual] = [youngCollections(threaded, "by bytes"), youngCollections(threaded)];
  t.true(byBytes >= 20 + usual, `${byBytes} collections by bytes, ${usual} by default`);
});
