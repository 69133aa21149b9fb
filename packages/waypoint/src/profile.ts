/** CPU and heap profiles of this process, in the forms that Chrome's and Node's tools open (ztunnel contract 9.3; the same here). */
import { Session } from "node:inspector/promises";
import type { AdminHandler, Clock } from "@fairway/runtime";

const microsecond = 1_000_000;

/** The routes under /debug/pprof. One CPU profile at a time; heap sampling only while it is switched on. */
export function profileRoutes(clock: Clock, signal: AbortSignal): Map<string, AdminHandler> {
  let profiling = false;
  let heap: Session | undefined;
  const cpuProfile: AdminHandler = async ({ url }) => {
    const seconds = wholeNumber(url.searchParams.get("seconds"), { fallback: 10, least: 1, most: 300 });
    const frequency = wholeNumber(url.searchParams.get("frequency"), { fallback: 100, least: 1, most: 1000 });
    if (seconds === undefined || frequency === undefined) return { status: 400, body: "seconds is 1 to 300, frequency 1 to 1000\n" };
    if (profiling) return { status: 409, body: "a profile is being taken already\n" };
    profiling = true;
    const session = new Session();
    try {
      session.connect();
      await session.post("Profiler.enable");
      await session.post("Profiler.setSamplingInterval", { interval: Math.round(microsecond / frequency) });
      await session.post("Profiler.start");
      await clock.sleep(seconds * 1_000, { signal });
      const { profile } = await session.post("Profiler.stop");
      return { contentType: "application/json", body: JSON.stringify(profile) };
    } finally {
      session.disconnect();
      profiling = false;
    }
  };
  const heapProfile: AdminHandler = async () => {
    if (heap === undefined) return { status: 500, body: "heap profiling is off; activate it at /debug/pprof/heap/profiling?activate=true\n" };
    const { profile } = await heap.post("HeapProfiler.getSamplingProfile");
    return { contentType: "application/json", body: JSON.stringify(profile) };
  };
  const heapSwitch: AdminHandler = async ({ url }) => {
    const wanted = url.searchParams.get("activate");
    if (wanted !== "true" && wanted !== "false") return { status: 400, body: "activate is true or false\n" };
    if (wanted === "true" && heap === undefined) {
      heap = new Session();
      heap.connect();
      await heap.post("HeapProfiler.startSampling");
    } else if (wanted === "false" && heap !== undefined) {
      heap.disconnect();
      heap = undefined;
    }
    return { body: `heap profiling is ${heap === undefined ? "off" : "on"}\n` };
  };
  return new Map([
    ["/debug/pprof/profile", cpuProfile],
    ["/debug/pprof/heap", heapProfile],
    ["/debug/pprof/heap/profiling", heapSwitch],
  ]);
}

function wholeNumber(text: string | null, { fallback, least, most }: { fallback: number; least: number; most: number }): number | undefined {
  if (text === null) return fallback;
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  return value >= least && value <= most ? value : undefined;
}
