/**
 * Our waypoint, nginx and haproxy as L7 proxies with mutual TLS on both sides, one after the other in one run on loopback.
 *   node dist/waypoint/main.js [--quick] [--json] [--repetitions N] [--only requests,paced,grpc,body] [--arms waypoint,nginx,haproxy]
 */
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import type { AuthorityPem } from "@fairway/pki";
import { trafficThreadMemory } from "@fairway/waypoint";
import { type Child, killAll, pinned, startProgram } from "../child.ts";
import { newAuthority } from "../identities.ts";
import { machine } from "../machine.ts";
import { cpuSeconds, residentKb } from "../process-cost.ts";
import { median } from "../report.ts";
import type { BackendPorts } from "./backend.ts";
import {
  bodyBytes,
  connectionCounts,
  largeBodyBytes,
  pacedPerSecond,
  service,
  type TargetProxy,
  type WaypointLoad,
  type WaypointLoadResult,
} from "./measures.ts";
import { startNative } from "./native.ts";

const { values: options } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    repetitions: { type: "string" },
    only: { type: "string" },
    arms: { type: "string" },
  },
});

const proxyCore = 0;
const mark = { figure: "requests per CPU second, 32 connections", other: "nginx", atLeast: 0.6 } as const;
const kinds = ["requests", "paced", "grpc", "body"] as const;
const repetitions = Number(options.repetitions ?? (options.quick ? 1 : 3));
const ms = options.quick ? 1_000 : 3_000;
const settleMs = 200;

interface Arm {
  readonly name: string;
  readonly target: TargetProxy;
  /** Undefined: the application itself, without a proxy. */
  readonly pid: number | undefined;
}

class Figures {
  readonly #samples = new Map<string, { unit: string; arms: Map<string, number[]> }>();

  record(name: string, unit: string, arm: string, value: number): void {
    const figure = this.#samples.get(name) ?? { unit, arms: new Map<string, number[]>() };
    this.#samples.set(name, figure);
    figure.arms.set(arm, [...(figure.arms.get(arm) ?? []), value]);
  }

  median(name: string, arm: string): number | undefined {
    const values = this.#samples.get(name)?.arms.get(arm);
    return values === undefined ? undefined : median(values);
  }

  rows(arms: readonly string[]): string[][] {
    return [...this.#samples].map(([name, { unit, arms: samples }]) => [
      name,
      unit,
      ...arms.map((arm) => cell(samples.get(arm))),
      ...arms.slice(1).map((arm) => ratio(this.median(name, arms[0] ?? ""), this.median(name, arm))),
    ]);
  }
}

async function main(): Promise<void> {
  const say = (text: string): void => void (options.json ? process.stderr : process.stdout).write(`${text}\n`);
  const wanted = kinds.filter((kind) => options.only === undefined || options.only.split(",").includes(kind));
  const authority = newAuthority();
  await using stack = new AsyncDisposableStack();
  const { child: backend, answer } = await startProgram("./waypoint/backend.js", undefined, { authority, grpcPort: service.grpcPort });
  stack.use(backend);
  const ports = answer as BackendPorts;
  const { child: load } = await startProgram("./waypoint/load.js", undefined, { kind: "hello" });
  stack.use(load);
  const arms = await startArms(authority, ports, stack, say);
  const figures = new Figures();
  let failures = 0;
  const measure = async (arm: Arm, request: Request): Promise<{ result: WaypointLoadResult; cpu: number }> => {
    await sleep(settleMs);
    const pids = arm.pid === undefined ? [] : [arm.pid];
    const [before, start] = [await cpuSeconds(pids), performance.now()];
    const result = (await load.ask({ ...request, authority, target: arm.target })) as WaypointLoadResult;
    const used = (await cpuSeconds(pids)) - before;
    failures += result.failures;
    if (result.failures > 0) say(`${arm.name}: ${result.failures} failed in ${JSON.stringify(request)}`);
    return { result, cpu: (used * result.seconds * 1000) / (performance.now() - start) };
  };
  for (const arm of arms) {
    await listening(load, arm, authority);
    await measure(arm, { kind: "requests", connections: 32, ms: 1_500 });
  }
  failures = 0;
  for (let repetition = 1; repetition <= repetitions; repetition++) {
    say(`repetition ${repetition} of ${repetitions}`);
    for (const kind of wanted) for (const arm of arms) await measurements[kind](arm, figures, measure);
  }
  for (const { name, pid } of arms) if (pid !== undefined) figures.record("resident memory at the end", "MB", name, (await residentKb([pid])) / 1024);
  report(figures, arms, failures, say);
}

type Request = WaypointLoad extends infer Load ? (Load extends WaypointLoad ? Omit<Load, "authority" | "target"> : never) : never;
type Measure = (arm: Arm, request: Request) => Promise<{ result: WaypointLoadResult; cpu: number }>;

const measurements: Readonly<Record<(typeof kinds)[number], (arm: Arm, figures: Figures, measure: Measure) => Promise<void>>> = {
  requests: async (arm, figures, measure) => {
    for (const connections of connectionCounts) {
      const { result, cpu } = await measure(arm, { kind: "requests", connections, ms });
      const label = `${connections} connection${connections === 1 ? "" : "s"}`;
      if (arm.pid !== undefined) figures.record(`requests per CPU second, ${label}`, "/s", arm.name, result.count / cpu);
      figures.record(`requests, ${label}, ${bodyBytes} B`, "/s", arm.name, result.count / result.seconds);
    }
  },
  paced: async (arm, figures, measure) => {
    const { result } = await measure(arm, { kind: "paced", connections: 64, perSecond: pacedPerSecond, ms });
    for (const share of ["p50", "p90", "p99"] as const)
      figures.record(`latency ${share} at ${pacedPerSecond} /s`, "us", arm.name, result.latency?.[share] ?? Number.NaN);
  },
  grpc: async (arm, figures, measure) => {
    const { result, cpu } = await measure(arm, { kind: "grpc", connections: 4, streams: 16, ms });
    figures.record("gRPC unary, 64 at once", "/s", arm.name, result.count / result.seconds);
    if (arm.pid !== undefined) figures.record("gRPC unary per CPU second", "/s", arm.name, result.count / cpu);
  },
  body: async (arm, figures, measure) => {
    for (const direction of ["down", "up"] as const) {
      const { result, cpu } = await measure(arm, { kind: "body", direction, bytes: largeBodyBytes });
      figures.record(`100 MB body, ${direction}`, "Gbit/s", arm.name, (result.count * 8) / result.seconds / 1e9);
      if (arm.pid !== undefined) figures.record(`CPU per GB, ${direction}`, "s", arm.name, (cpu / result.count) * 1e9);
    }
  },
};

/** The hop is a thread of the program in a process of its own, with that thread's memory. */
const threadFlags: readonly string[] = [`--max-semi-space-size=${(trafficThreadMemory.maxYoungGenerationSizeMb ?? 0) / 3}`];

async function startArms(authority: AuthorityPem, ports: BackendPorts, stack: AsyncDisposableStack, say: (text: string) => void): Promise<Arm[]> {
  const isWanted = (name: string): boolean => options.arms === undefined || options.arms.split(",").includes(name);
  const arms: Arm[] = [];
  if (isWanted("waypoint")) {
    const { child, answer } = await startProgram(
      "./waypoint/hop.js",
      proxyCore,
      { authority, tunnelPort: ports.tunnel },
      { profile: true, flags: threadFlags },
    );
    stack.use(child);
    const { port } = answer as { port: number };
    arms.push({ name: "waypoint", target: { carrier: "hbone", port, http2Port: port }, pid: child.pid });
  }
  for (const program of ["nginx", "haproxy"] as const) {
    const proxy = isWanted(program) ? await startNative(program, authority, ports.tls, proxyCore) : undefined;
    if (proxy !== undefined) {
      stack.defer(() => proxy.stop());
      arms.push({ name: program, target: proxy.target, pid: proxy.child.pid });
    } else if (isWanted(program)) say(`${program} is not on this machine: its column is missing (Debian: apt-get install ${program})`);
  }
  if (isWanted("direct")) arms.push({ name: "direct", target: { carrier: "tls", port: ports.tls, http2Port: ports.tls }, pid: undefined });
  return arms;
}

async function listening(load: Child, { name, target }: Arm, authority: AuthorityPem): Promise<void> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const { count } = (await load.ask({ kind: "probe", authority, target })) as WaypointLoadResult;
    if (count > 0) return;
    await sleep(100);
  }
  throw new Error(`${name} does not answer`);
}

function report(figures: Figures, arms: readonly Arm[], failures: number, say: (text: string) => void): void {
  const names = arms.map(({ name }) => name);
  const head = ["", "unit", ...names, ...names.slice(1).map((name) => `${names[0]} / ${name}`)];
  const rows = figures.rows(names);
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? "").length)));
  const line = (cells: readonly string[]): string =>
    cells.map((text, column) => (column < 2 ? text.padEnd(widths[column] ?? 0) : text.padStart(widths[column] ?? 0))).join("  ");
  say(`\n${[line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n")}\n`);
  const [ours, theirs] = [figures.median(mark.figure, "waypoint"), figures.median(mark.figure, mark.other)];
  if (ours === undefined || theirs === undefined) say(`${mark.figure}: not measured against ${mark.other}`);
  else say(`${mark.figure}: ${(ours / theirs).toFixed(2)}x of ${mark.other}, at least ${mark.atLeast}x: ${ours / theirs >= mark.atLeast ? "met" : "MISSED"}`);
  say(`\n${machine()}${pinned ? "; proxies on one core" : "; taskset is missing, nothing was pinned"}; medians of ${repetitions}, [min..max]`);
  if (failures > 0) say(`${failures} requests failed during the run`);
  if (options.json) process.stdout.write(`${JSON.stringify({ machine: machine(), pinned, repetitions, failures, head, rows })}\n`);
}

function cell(values: readonly number[] | undefined): string {
  if (values === undefined) return "-";
  const [least, most] = [Math.min(...values), Math.max(...values)];
  return least === most ? figure(least) : `${figure(median(values))} [${figure(least)}..${figure(most)}]`;
}

function ratio(ours: number | undefined, theirs: number | undefined): string {
  return ours === undefined || theirs === undefined || theirs === 0 ? "-" : `${(ours / theirs).toFixed(2)}x`;
}

function figure(value: number): string {
  return Number.isFinite(value) ? value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2) : "-";
}

process.on("exit", killAll);
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(1));
try {
  await main();
} catch (thrown) {
  console.error(thrown);
  process.exitCode = 1;
}
