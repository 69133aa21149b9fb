/**
 * `npm run bench -- --whole`: the whole ztunnel, threads and all. One process serves two pods, so each connection passes it twice, with policy,
 * metrics and original destination in the path. Needs root. Compares numbers of threads, or programs, in turns; then the memory of known workloads.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Figures } from "./figures.ts";
import { machine } from "./machine.ts";
import type { WholeOptions } from "./options.ts";
import { podNamespaces } from "./pod-namespaces.ts";
import { cpuSeconds, residentKb } from "./process-cost.ts";
import { number, summarize, table } from "./report.ts";
import type { LoadKind, LoadResult } from "./whole-load.ts";
import { type Pods, startZtunnel } from "./whole-ztunnel.ts";

const loads: readonly LoadKind[] = ["connects", "requests", "down"];
const settleMs = 3_000;
/** Kilobytes of heap for each workload the mesh has, at most. */
const workloadMark = 1;
const perWorkload = "heap per known workload";

interface WholeArm {
  readonly name: string;
  readonly program: string;
  readonly threads: string;
}

export async function runWhole(options: WholeOptions): Promise<void> {
  const say = (text: string): void => void (options.json ? process.stderr : process.stdout).write(`${text}\n`);
  if (process.getuid?.() !== 0) return say("skipped: the whole ztunnel needs root and network namespaces");
  const arms = options.programs.flatMap((program, index) =>
    options.threads.map((threads): WholeArm => ({ name: `${index > 0 ? `program ${index + 1}, ` : ""}${threads} threads`, program, threads })),
  );
  const figures = new Figures();
  const pods = podNamespaces(`fwbench-${process.pid}`);
  const app = inPod(pods.b.namespace, "serve");
  try {
    for (let turn = 1; turn <= options.repetitions; turn++) {
      say(`repetition ${turn} of ${options.repetitions}`);
      for (const arm of arms) await underLoad(arm, pods, options.seconds, figures, say);
      if (options.workloads > 0) for (const arm of arms) await knownWorkloads(arm, pods, options.workloads, figures);
    }
  } finally {
    app.kill();
    pods[Symbol.dispose]();
  }
  const rows = summarize(figures.all());
  const names = arms.map(({ name }) => name);
  say(`\n${table(rows, names, names[0] ?? "", names.slice(1))}\n`);
  const heap = rows.find(({ name }) => name === perWorkload);
  for (const [name, { median }] of Object.entries(heap?.arms ?? {}))
    say(`${perWorkload}, ${name}: ${number(median)} KB, at most ${workloadMark} KB: ${median <= workloadMark ? "met" : "MISSED"}`);
  say(`\n${machine()}; both hops in one process, nothing pinned; medians of ${options.repetitions}, [min..max]`);
  if (options.json) process.stdout.write(`${JSON.stringify({ machine: machine(), repetitions: options.repetitions, rows }, null, 2)}\n`);
}

async function underLoad(arm: WholeArm, pods: Pods, seconds: number, figures: Figures, say: (text: string) => void): Promise<void> {
  const note = (row: string, unit: string, value: number): void => figures.record(row, unit, arm.name, value);
  await using ztunnel = await startZtunnel({ ...arm, workloads: 0, from: "file" }, pods);
  await sleep(settleMs);
  note("resident memory at rest", "MB", (await residentKb([ztunnel.pid])) / 1024);
  for (const kind of loads) {
    const before = await cpuSeconds([ztunnel.pid]);
    const { done, seconds: took, p50Ms, p99Ms, failed } = await load(kind, pods, seconds);
    const cpu = (await cpuSeconds([ztunnel.pid])) - before;
    if (failed > 0) say(`${arm.name}, ${kind}: ${failed} failed`);
    if (kind === "down") {
      note("down, 8 connections", "Gbit/s", (done * 8) / took / 1e9);
      note("CPU per GB", "s", cpu / (done / 1e9));
      continue;
    }
    note(kind, "/s", done / took);
    note(`${kind}, p50`, "ms", p50Ms);
    note(`${kind}, p99`, "ms", p99Ms);
    note(`CPU per 1000 ${kind}`, "ms", (cpu / done) * 1e6);
  }
}

/** What a ztunnel holds more for knowing so many workloads than for knowing its two pods alone, all garbage collected. */
async function knownWorkloads(arm: WholeArm, pods: Pods, workloads: number, figures: Figures): Promise<void> {
  const held = async (known: number): Promise<{ heapKb: number; residentKb: number }> => {
    await using ztunnel = await startZtunnel({ ...arm, workloads: known, from: "control plane" }, pods);
    return await ztunnel.settled();
  };
  const [few, many] = [await held(0), await held(workloads)];
  figures.record(perWorkload, "KB", arm.name, (many.heapKb - few.heapKb) / workloads);
  figures.record("resident memory per known workload", "KB", arm.name, (many.residentKb - few.residentKb) / workloads);
}

function inPod(namespace: string, ...args: readonly string[]): ChildProcess {
  const script = fileURLToPath(new URL("./whole-load.js", import.meta.url));
  return spawn("ip", ["netns", "exec", namespace, process.execPath, script, ...args], { stdio: ["ignore", "pipe", "inherit"] });
}

async function load(kind: LoadKind, pods: Pods, seconds: number): Promise<LoadResult> {
  const child = inPod(pods.a.namespace, kind, pods.b.ip, String(seconds));
  let output = "";
  child.stdout?.on("data", (chunk) => {
    output += String(chunk);
  });
  await once(child, "exit");
  return JSON.parse(output) as LoadResult;
}
