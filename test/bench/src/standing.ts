/** What connections that stand cost in memory, what a burst of them leaves behind, and how many are lost. On fresh processes, once a run. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Arm, ArmMaker } from "./arms.ts";
import type { Figures } from "./figures.ts";
import type { Generator } from "./generator.ts";
import { residentKb } from "./process-cost.ts";

export const standingGroups = ["memory", "burst"] as const;
export type StandingGroup = (typeof standingGroups)[number];

export interface Sizes {
  /** Idle connections: growth is counted from the first, which pays what is paid once, to each of the others. */
  readonly idle: readonly [number, ...number[]];
  /** One burst whose memory is watched. */
  readonly burst: number;
  readonly afterMs: number;
  /** Bursts that follow one another. */
  readonly again: { readonly times: number; readonly connections: number };
}

/** What was asked for, less what one process may not open: a proxy of TCP holds two descriptors for each connection. */
export function sizes(quick: boolean, descriptors: number): Sizes {
  const most = (connections: number): number => Math.min(connections, Math.floor((descriptors - descriptorsOfTheirOwn) / 2));
  return quick
    ? { idle: [200, 1_000, most(2_000)], burst: most(2_000), afterMs: 10_000, again: { times: 2, connections: most(1_000) } }
    : { idle: [200, 1_000, most(10_000)], burst: most(10_000), afterMs: 60_000, again: { times: 4, connections: most(5_000) } };
}

export function describeSizes({ idle, burst, afterMs, again }: Sizes): string {
  return `memory at ${idle.slice(1).join(" and ")} idle connections; a burst of ${burst}, watched for ${afterMs / 1_000} s; ${again.times} bursts of ${again.connections}`;
}

const descriptorsOfTheirOwn = 500;
/** Connections that stood before the bursts and must outlive them. */
const witnesses = 100;
const idleAtOnce = 50;
const burstAtOnce = 1_000;
const settleMs = 1_500;
const samplePeriodMs = 100;

export async function idleMemory(maker: ArmMaker, generator: Generator, figures: Figures, { idle: [from, ...counts] }: Sizes): Promise<void> {
  const arm = await freshArm(maker, generator);
  try {
    const { name, host, ports, hops } = arm;
    const resident = async (connections: number): Promise<number> => {
      await generator.ask({ kind: "hold", host, connections, atOnce: idleAtOnce, port: ports.echo });
      await sleep(settleMs);
      return residentKb(hops);
    };
    const before = await resident(from);
    for (const connections of counts) {
      const grown = (await resident(connections)) - before;
      figures.record(`idle connections, to ${connections}: each, per hop`, "KB", name, grown / (connections - from) / hops.length);
    }
  } finally {
    await release(generator, 0);
    await arm.stop();
  }
}

/** All arms at once, so that they wait for their memory together. */
export async function bursts(makers: readonly ArmMaker[], generator: Generator, figures: Figures, plan: Sizes, failed: Failed): Promise<void> {
  const waiting: { readonly arm: Arm; readonly before: number; readonly since: number }[] = [];
  try {
    for (const maker of makers) {
      await guarded(maker.name, failed, async () => {
        const arm = await freshArm(maker, generator);
        const entry = { arm, before: await residentKb(arm.hops), since: 0 };
        waiting.push(entry);
        await oneBurst(arm, entry.before, generator, figures, plan.burst);
        waiting[waiting.length - 1] = { ...entry, since: performance.now() };
      });
    }
    for (const { arm, before, since } of waiting.filter(({ since }) => since > 0)) {
      await guarded(arm.name, failed, async () => {
        await sleep(Math.max(0, since + plan.afterMs - performance.now()));
        const after = await residentKb(arm.hops);
        figures.record(`burst: resident ${plan.afterMs / 1_000} s after`, "MB", arm.name, after / 1024);
        figures.record("burst: resident after / before", "", arm.name, after / before);
      });
    }
    for (const { arm } of waiting) await guarded(arm.name, failed, () => repeatedBursts(arm, generator, figures, plan.again));
  } finally {
    await release(generator, 0);
    for (const { arm } of waiting) await arm.stop();
  }
}

/** Tells that an arm did not get through a measurement; the others go on. */
export type Failed = (arm: string, thrown: unknown) => void;

export async function guarded(name: string, failed: Failed, measure: () => Promise<void>): Promise<void> {
  try {
    await measure();
  } catch (thrown) {
    failed(name, thrown);
  }
}

async function freshArm(maker: ArmMaker, generator: Generator): Promise<Arm> {
  const arm = await maker.start();
  try {
    await generator.warmUp(arm);
    await sleep(settleMs);
    return arm;
  } catch (thrown) {
    await arm.stop();
    throw thrown;
  }
}

async function oneBurst({ name, host, ports, hops }: Arm, before: number, generator: Generator, figures: Figures, connections: number): Promise<void> {
  const opened = generator.ask({ kind: "hold", host, connections, atOnce: burstAtOnce, port: ports.echo });
  let [top, open] = [before, true];
  const watched = (async (): Promise<void> => {
    while (open) {
      top = Math.max(top, await residentKb(hops));
      await sleep(samplePeriodMs);
    }
  })();
  try {
    const { count, seconds, failures } = await opened;
    figures.record("burst: connections taken", "/s", name, count / seconds);
    figures.record("burst: connections lost", "", name, failures);
  } finally {
    open = false;
    await watched;
  }
  figures.record("burst: resident before", "MB", name, before / 1024);
  figures.record("burst: resident at the top", "MB", name, Math.max(top, await residentKb(hops)) / 1024);
  await release(generator, 0);
}

async function repeatedBursts(arm: Arm, generator: Generator, figures: Figures, { times, connections }: Sizes["again"]): Promise<void> {
  const { name, host, ports } = arm;
  const hold = (count: number): ReturnType<Generator["ask"]> =>
    generator.ask({ kind: "hold", host, connections: count, atOnce: burstAtOnce, port: ports.echo });
  await arm.tunnelsLost?.();
  let { failures: lost } = await hold(witnesses);
  for (let time = 0; time < times; time++) {
    lost += (await hold(witnesses + connections)).failures;
    lost += (await generator.ask({ kind: "held", host, skip: witnesses })).failures;
    await release(generator, witnesses);
  }
  lost += (await generator.ask({ kind: "held", host, skip: 0 })).failures;
  await release(generator, 0);
  figures.record("repeated bursts: connections lost", "", name, lost);
  if (arm.tunnelsLost !== undefined) figures.record("repeated bursts: tunnels lost", "", name, await arm.tunnelsLost());
}

async function release(generator: Generator, keep: number): Promise<void> {
  await generator.ask({ kind: "release", host: "", keep });
}
