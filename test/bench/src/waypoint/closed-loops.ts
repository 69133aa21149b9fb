/** Callers that call again as soon as they were answered, and how long they waited. */
import { setTimeout as sleep } from "node:timers/promises";
import type { WaypointLoadResult } from "./measures.ts";

/** One call. A caller that is gone calls no more. */
type Call = () => Promise<"answered" | "failed" | "gone">;

/** Lets every caller of `callers` call for `ms` after the warm-up; only what is answered in that time counts. */
export async function closedLoops(callers: readonly Call[], { warmUpMs, ms }: { readonly warmUpMs: number; readonly ms: number }): Promise<WaypointLoadResult> {
  let [measuring, running, failures] = [false, true, 0];
  const latencies: number[] = [];
  const loops = callers.map(async (call) => {
    while (running) {
      const sent = performance.now();
      const outcome = await call();
      if (outcome === "gone") return;
      if (outcome === "failed") failures++;
      else if (measuring) latencies.push(performance.now() - sent);
    }
  });
  await sleep(warmUpMs);
  measuring = true;
  const start = performance.now();
  await sleep(ms);
  measuring = false;
  const seconds = (performance.now() - start) / 1000;
  running = false;
  await Promise.all(loops);
  return { count: latencies.length, seconds, failures, latency: percentiles(latencies) };
}

export function percentiles(latencies: number[]): NonNullable<WaypointLoadResult["latency"]> {
  latencies.sort((a, b) => a - b);
  const at = (share: number): number => (latencies[Math.floor(latencies.length * share)] ?? 0) * 1000;
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99) };
}
