/** What a soak asserts of its samples: at rest a process is as large, and holds as many descriptors, late in the run as early in it. */

export interface Sample {
  readonly seconds: number;
  readonly residentMb: number;
  readonly descriptors: number;
  readonly threads: number;
}

/** Of a whole run: the heaps of every thread have found their size. */
const warmUpShare = 0.25;
const leastSamplesForMemory = 20;
const memoryGrowth = 1.15;
const memorySlackMb = 8;
/** Pooled tunnels come and go with the pods. */
const descriptorSlack = 12;

/** What is wrong, in words; nothing when all is well. */
export function judge(samples: readonly Sample[]): readonly string[] {
  const warm = samples.slice(Math.floor(samples.length * warmUpShare));
  const third = Math.max(1, Math.floor(warm.length / 3));
  const [early, late] = [warm.slice(0, third), warm.slice(-third)];
  const problems: string[] = [];
  const [earlyFds, lateFds] = [most(early, "descriptors"), most(late, "descriptors")];
  if (lateFds > earlyFds + descriptorSlack) problems.push(`descriptors grew from ${earlyFds} to ${lateFds}`);
  const [earlyThreads, lateThreads] = [most(early, "threads"), most(late, "threads")];
  if (lateThreads > earlyThreads) problems.push(`threads grew from ${earlyThreads} to ${lateThreads}`);
  if (samples.length < leastSamplesForMemory) return problems;
  const [earlyMb, lateMb] = [median(early), median(late)];
  if (lateMb > earlyMb * memoryGrowth + memorySlackMb) problems.push(`resident memory grew from ${earlyMb.toFixed(0)} to ${lateMb.toFixed(0)} MB`);
  return problems;
}

function most(samples: readonly Sample[], what: "descriptors" | "threads"): number {
  return Math.max(...samples.map((sample) => sample[what]));
}

function median(samples: readonly Sample[]): number {
  return samples.map(({ residentMb }) => residentMb).toSorted((a, b) => a - b)[samples.length >> 1] ?? Number.NaN;
}
