/** One run: the same measurements over every arm, interleaved within each repetition. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Arm, ArmName } from "./arms.ts";
import type { Child } from "./child.ts";
import { concurrency, idleConnections, type LoadRequest, type LoadResult } from "./measures.ts";
import { cpuSeconds, residentKb } from "./process-cost.ts";
import type { Figure } from "./report.ts";

export const groupNames = ["throughput", "requests", "connects", "memory"] as const;
export type GroupName = (typeof groupNames)[number];

/** Between measurements, so that one does not pay for the other's clean-up. */
const settleMs = 150;
const connectionCounts = [1, 2, 8];

export class Session {
  failures = 0;
  readonly #load: Child;
  readonly #arms: readonly Arm[];
  readonly #times: { readonly throughputMs: number; readonly requestsMs: number; readonly connectsMs: number };
  readonly #figures = new Map<string, Figure>();

  constructor(load: Child, arms: readonly Arm[], { quick }: { quick: boolean }) {
    this.#load = load;
    this.#arms = arms;
    this.#times = quick ? { throughputMs: 400, requestsMs: 700, connectsMs: 700 } : { throughputMs: 1_000, requestsMs: 1_500, connectsMs: 1_500 };
  }

  figures(): Figure[] {
    return [...this.#figures.values()];
  }

  /** Compiled code, grown buffers and an open tunnel before anything counts; also waits for haproxy to listen. */
  async warmUp(): Promise<void> {
    for (const { ports } of this.#arms) {
      await this.#connectable(ports.echo);
      await this.#ask({ kind: "requests", connections: concurrency, port: ports.echo, ms: 500 });
      await this.#ask({ kind: "connects", concurrency, port: ports.echo, ms: 300 });
    }
    this.failures = 0;
  }

  async repetition(groups: readonly GroupName[]): Promise<void> {
    if (groups.includes("throughput")) {
      for (const connections of connectionCounts) {
        for (const direction of ["up", "down"] as const) for (const arm of this.#arms) await this.#throughput(arm, direction, connections);
      }
    }
    if (groups.includes("requests")) for (const arm of this.#arms) await this.#requests(arm);
    if (groups.includes("connects")) for (const arm of this.#arms) await this.#connects(arm);
  }

  /** Growth of the resident set from the first idle connections to the last, so that one-off growth does not count. */
  async memory(): Promise<void> {
    for (const { name, ports, hops } of this.#arms) {
      if (hops.length === 0) continue;
      await this.#ask({ kind: "idle-open", connections: idleConnections.from, port: ports.echo });
      await sleep(1_000);
      const before = await residentKb(hops);
      await this.#ask({ kind: "idle-open", connections: idleConnections.to, port: ports.echo });
      await sleep(1_000);
      const grown = (await residentKb(hops)) - before;
      await this.#ask({ kind: "idle-close" });
      await sleep(settleMs);
      this.#record("memory per idle connection, all hops", "KB", false, name, grown / (idleConnections.to - idleConnections.from));
    }
  }

  async #throughput({ name, ports, hops }: Arm, direction: "up" | "down", connections: number): Promise<void> {
    const port = direction === "up" ? ports.sink : ports.source;
    const [{ count, seconds }, cpu] = await this.#priced(hops, { kind: "throughput", direction, connections, port, ms: this.#times.throughputMs });
    const label = `${direction}, ${connections} connection${connections === 1 ? "" : "s"}`;
    this.#record(label, "Gbit/s", true, name, (count * 8) / seconds / 1e9);
    // The cost also covers the warm-up, which moves bytes that are not counted; both are scaled by time.
    if (connections === 1 && hops.length > 0) this.#record(`CPU per GB, ${direction}`, "s", false, name, (cpu / count) * 1e9);
  }

  async #requests({ name, ports, hops }: Arm): Promise<void> {
    const [{ count, seconds, latency }, cpu] = await this.#priced(hops, {
      kind: "requests",
      connections: concurrency,
      port: ports.echo,
      ms: this.#times.requestsMs,
    });
    this.#record("requests, 32 connections, 1 KB", "/s", true, name, count / seconds);
    for (const share of ["p50", "p90", "p99"] as const) this.#record(`latency ${share}`, "us", false, name, latency?.[share] ?? Number.NaN);
    if (hops.length > 0) this.#record("CPU per 1000 requests", "ms", false, name, (cpu / count) * 1e6);
  }

  async #connects({ name, ports, hops }: Arm): Promise<void> {
    const [{ count, seconds }, cpu] = await this.#priced(hops, { kind: "connects", concurrency, port: ports.echo, ms: this.#times.connectsMs });
    this.#record("new connections", "/s", true, name, count / seconds);
    if (hops.length > 0) this.#record("CPU per 1000 connections", "ms", false, name, (cpu / count) * 1e6);
  }

  /** The result, and the CPU seconds of the hops in the measured time (their rate over the whole, warm-up included). */
  async #priced(hops: readonly number[], request: LoadRequest): Promise<[LoadResult, number]> {
    await sleep(settleMs);
    const [before, start] = [await cpuSeconds(hops), performance.now()];
    const result = await this.#ask(request);
    const elapsed = (performance.now() - start) / 1000;
    const used = (await cpuSeconds(hops)) - before;
    return [result, (used * result.seconds) / elapsed];
  }

  async #connectable(port: number): Promise<void> {
    for (let attempt = 0; attempt < 50; attempt++) {
      const { failures } = await this.#ask({ kind: "connects", concurrency: 1, port, ms: 1 });
      if (failures === 0) return;
      await sleep(50);
    }
    throw new Error(`nobody answers on port ${port}`);
  }

  async #ask(request: LoadRequest): Promise<LoadResult> {
    const result = (await this.#load.ask(request)) as LoadResult;
    this.failures += result.failures;
    return result;
  }

  #record(name: string, unit: string, higherIsBetter: boolean, arm: ArmName, value: number): void {
    const figure = this.#figures.get(name) ?? { name, unit, higherIsBetter, samples: new Map() };
    this.#figures.set(name, figure);
    figure.samples.set(arm, [...(figure.samples.get(arm) ?? []), value]);
  }
}
