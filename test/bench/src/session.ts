/** The measurements of load: the same over every arm, interleaved within each repetition. */
import { setTimeout as sleep } from "node:timers/promises";
import { type Arm, names } from "./arms.ts";
import type { Figures } from "./figures.ts";
import type { Generator } from "./generator.ts";
import { concurrency, type Latency, type LoadRequest, type LoadResult, pace, shares } from "./measures.ts";
import { cpuSeconds } from "./process-cost.ts";

export const loadGroups = ["throughput", "requests", "paced", "connects", "handshakes"] as const;
export type LoadGroup = (typeof loadGroups)[number];

/** How long each measurement takes. */
export interface Times {
  readonly throughputMs: number;
  readonly requestsMs: number;
  readonly pacedMs: number;
  readonly connectsMs: number;
  /** Until the windows of TCP and of the tunnels have grown. */
  readonly rampMs: number;
}

export const fullTimes: Times = { throughputMs: 1_000, requestsMs: 1_500, pacedMs: 4_000, connectsMs: 1_500, rampMs: 200 };
export const quickTimes: Times = { throughputMs: 400, requestsMs: 700, pacedMs: 1_000, connectsMs: 700, rampMs: 200 };

/** Between measurements, so that one does not pay for the other's clean-up. */
const settleMs = 150;
const connectionCounts = [1, 2, 8];
const openLoop = `open loop, ${pace.perSecond}/s of 1 KB`;

export class Session {
  readonly #generator: Generator;
  readonly #arms: readonly Arm[];
  readonly #figures: Figures;
  readonly #times: Times;

  constructor(generator: Generator, arms: readonly Arm[], figures: Figures, times: Times) {
    this.#generator = generator;
    this.#arms = arms;
    this.#figures = figures;
    this.#times = times;
  }

  async repetition(groups: ReadonlySet<LoadGroup>): Promise<void> {
    if (groups.has("throughput")) {
      for (const connections of connectionCounts) {
        for (const direction of ["up", "down"] as const) for (const arm of this.#arms) await this.#throughput(arm, direction, connections);
      }
    }
    if (groups.has("requests")) for (const arm of this.#arms) await this.#requests(arm);
    if (groups.has("paced")) await this.#paced();
    if (groups.has("connects")) for (const arm of this.#arms) await this.#connects(arm);
    if (groups.has("handshakes")) for (const arm of this.#arms) await this.#handshakes(arm);
  }

  async #throughput({ name, host, ports, hops }: Arm, direction: "up" | "down", connections: number): Promise<void> {
    const port = direction === "up" ? ports.sink : ports.source;
    const [{ throughputMs: ms, rampMs }, load] = [this.#times, { kind: "throughput", host, direction, connections, port } as const];
    const [{ count, seconds }, cpu] = await this.#priced(hops, { ...load, ms, warmUpMs: rampMs });
    const label = `${direction}, ${connections} connection${connections === 1 ? "" : "s"}`;
    this.#figures.record(label, "Gbit/s", name, (count * 8) / seconds / 1e9);
    // The cost also covers the warm-up, which moves bytes that are not counted; both are scaled by time.
    if (connections === 1 && hops.length > 0) this.#figures.record(`CPU per GB, ${direction}`, "s", name, (cpu / count) * 1e9);
  }

  async #requests({ name, host, ports, hops }: Arm): Promise<void> {
    const load = { kind: "requests", host, connections: concurrency, port: ports.echo, ms: this.#times.requestsMs } as const;
    const [{ count, seconds, latency }, cpu] = await this.#priced(hops, load);
    this.#figures.record(`requests, ${concurrency} connections, 1 KB`, "/s", name, count / seconds);
    for (const share of shares) this.#figures.record(`latency ${share}`, "us", name, latency?.[share] ?? Number.NaN);
    if (hops.length > 0) this.#figures.record("CPU per 1000 requests", "ms", name, (cpu / count) * 1e6);
  }

  async #paced(): Promise<void> {
    let direct: Latency | undefined;
    for (const { name, host, ports, hops } of this.#arms) {
      const [{ count, latency }, cpu] = await this.#priced(hops, { kind: "paced", host, ...pace, port: ports.echo, ms: this.#times.pacedMs });
      if (name === names.direct) direct = latency;
      for (const share of shares) this.#figures.record(`${openLoop}: ${share}`, "us", name, latency?.[share] ?? Number.NaN);
      if (hops.length === 0) continue;
      for (const share of shares) {
        if (direct !== undefined) this.#figures.record(`${openLoop}: added ${share}`, "us", name, (latency?.[share] ?? Number.NaN) - direct[share]);
      }
      this.#figures.record(`${openLoop}: CPU per 1000`, "ms", name, (cpu / count) * 1e6);
    }
  }

  async #connects({ name, host, ports, hops }: Arm): Promise<void> {
    const load = { kind: "connects", host, concurrency, port: ports.echo, ms: this.#times.connectsMs } as const;
    const [{ count, seconds }, cpu] = await this.#priced(hops, load);
    this.#figures.record("new connections", "/s", name, count / seconds);
    if (hops.length > 0) this.#figures.record("CPU per 1000 connections", "ms", name, (cpu / count) * 1e6);
  }

  /** Connections of which each makes a tunnel of its own, with a full handshake; `direct` has none to make. */
  async #handshakes({ name, host, ports, hops }: Arm): Promise<void> {
    if (ports.fresh === undefined || hops.length === 0) return;
    const load = { kind: "connects", host, concurrency, port: ports.fresh, ms: this.#times.connectsMs } as const;
    const [{ count, seconds }, cpu] = await this.#priced(hops, load);
    this.#figures.record("new tunnels, full handshakes", "/s", name, count / seconds);
    this.#figures.record("CPU per handshake, its connection included", "ms", name, (cpu / count) * 1e3);
  }

  /** The result, and the CPU seconds of the hops in the measured time (their rate over the whole, warm-up included). */
  async #priced(hops: readonly number[], request: LoadRequest): Promise<[LoadResult, number]> {
    await sleep(settleMs);
    const [before, start] = [await cpuSeconds(hops), performance.now()];
    const result = await this.#generator.ask(request);
    const elapsed = (performance.now() - start) / 1000;
    const used = (await cpuSeconds(hops)) - before;
    return [result, (used * result.seconds) / elapsed];
  }
}
