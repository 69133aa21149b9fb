/** Preloaded into a ztunnel by the bench (`--import`): on SIGUSR2 it collects all garbage and writes what is left of the main thread's heap to a file. */
import { renameSync, writeFileSync } from "node:fs";
import { isMainThread } from "node:worker_threads";

const path = process.env["FAIRWAY_BENCH_HEAP"];
const collections = 4;

if (isMainThread && path !== undefined) {
  process.on("SIGUSR2", () => {
    for (let time = 0; time < collections; time++) globalThis.gc?.();
    const { heapUsed, external } = process.memoryUsage();
    writeFileSync(`${path}.new`, JSON.stringify({ heapUsed, external }));
    renameSync(`${path}.new`, path);
  });
}
