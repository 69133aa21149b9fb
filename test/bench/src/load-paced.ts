/** Requests at a constant rate whatever the answers do (open loop), each timed from when it was due: a stall is paid by all that wait behind it. */
import { Worker } from "node:worker_threads";
import { dial, later } from "./load-connection.ts";
import { type LoadRequest, type LoadResult, percentiles, requestBytes } from "./measures.ts";
import type { PacerSetup } from "./pacer.ts";

const warmUpMs = 500;
const startInMs = 50;
/** For answers still under way when the last request is out. */
const patienceMs = 3_000;

/** The same clock in every thread, unlike performance.now(). */
function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

export async function paced({ host, connections, perSecond, port, ms }: LoadRequest & { kind: "paced" }): Promise<LoadResult> {
  const body = Buffer.alloc(requestBytes, 1);
  const sockets = await Promise.all(Array.from({ length: connections }, () => dial(port, host)));
  const total = Math.round((perSecond * (warmUpMs + ms)) / 1000);
  const setup: PacerSetup = { perSecond, total, startMs: monotonicMs() + startInMs };
  const countFrom = setup.startMs + warmUpMs;
  const latencies: number[] = [];
  let [sent, answered] = [0, 0];
  const lanes = sockets.map((socket) => {
    const due: number[] = [];
    let got = 0;
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      const now = monotonicMs();
      for (got += chunk.length; got >= requestBytes; got -= requestBytes) {
        const intended = due.shift() ?? now;
        answered += 1;
        if (intended >= countFrom) latencies.push(now - intended);
      }
    });
    return { socket, due };
  });
  const worker = new Worker(new URL("./pacer.js", import.meta.url), { workerData: setup });
  worker.on("message", (due: number) => {
    for (; sent < due; sent++) {
      const lane = lanes[sent % lanes.length];
      lane?.due.push(setup.startMs + (sent * 1000) / perSecond);
      lane?.socket.write(body);
    }
  });
  const patience = setup.startMs + warmUpMs + ms + patienceMs;
  while (answered < total && monotonicMs() < patience) await later(5);
  await worker.terminate();
  for (const { socket } of lanes) socket.destroy();
  return { count: latencies.length, seconds: ms / 1000, failures: total - answered, latency: percentiles(latencies) };
}
