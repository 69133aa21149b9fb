/**
 * Gives back the memory that a peak left behind. V8 collects when a program allocates: a thread that has become idle keeps the garbage of its
 * busiest moment for as long as it is idle (docs/performance.md has the figures).
 */
import { Session } from "node:inspector/promises";
import { performance } from "node:perf_hooks";
import { getHeapStatistics } from "node:v8";
import type { Clock } from "./clock.ts";

const periodMs = 10_000;
/** Of a period; with more to do a thread allocates, and V8 collects by itself. */
const idleShare = 0.1;
/** What a thread must hold more than after its last release to be worth a pause of some 50 ms. */
const growth = 1.2;
const slackBytes = 8 * 1_024 * 1_024;

/** The memory of the calling thread. */
export interface ThreadMemory {
  /** The share of the time since the last call in which the thread had something to do. */
  busy(): number;
  /** Bytes that its heap occupies, and those outside of it which objects of the heap keep. */
  size(): number;
  /** Bytes that the whole process has resident. */
  resident(): number;
  /** Collects everything that can be collected, and hands free pages back to the system. Never rejects. */
  collect(): Promise<void>;
}

export interface MemoryReleaseOptions {
  readonly clock: Clock;
  readonly memory?: ThreadMemory;
  /**
   * Called after each collection, when what objects kept outside of the heap is free, too; and when the process has grown though the heap has
   * not: the allocator keeps what was freed.
   */
  readonly afterwards?: () => void;
}

/**
 * Collects in an idle moment once the calling thread has grown; also what loading its code left. Call once in each thread. Under load it does
 * nothing but look at two numbers every ten seconds. Dispose to stop.
 */
export function releaseMemoryAtRest({ clock, memory = threadMemory(), afterwards }: MemoryReleaseOptions): Disposable {
  let stopped = false;
  let timer: Disposable | undefined;
  /** After the last release. */
  let [size, resident] = [0, 0];
  const look = async (): Promise<void> => {
    if (memory.busy() < idleShare) {
      const heapGrew = memory.size() > size * growth + slackBytes;
      if (heapGrew) await memory.collect();
      if (heapGrew || memory.resident() > resident * growth + slackBytes) {
        afterwards?.();
        if (heapGrew) size = memory.size();
        resident = memory.resident();
      }
    }
    wait();
  };
  const wait = (): void => {
    if (!stopped) timer = clock.schedule(periodMs, () => void look());
  };
  memory.busy();
  wait();
  return {
    [Symbol.dispose]: () => {
      stopped = true;
      timer?.[Symbol.dispose]();
    },
  };
}

export function threadMemory(): ThreadMemory {
  let last = performance.eventLoopUtilization();
  return {
    busy: () => {
      const now = performance.eventLoopUtilization();
      const { utilization } = performance.eventLoopUtilization(now, last);
      last = now;
      return utilization;
    },
    size: () => {
      const { total_physical_size: heap, external_memory: outside } = getHeapStatistics();
      return heap + outside;
    },
    resident: () => process.memoryUsage.rss(),
    collect,
  };
}

/** The public way to V8's notification of low memory, which also shrinks the heap; `gc` would have to be exposed and leaves the pages. */
async function collect(): Promise<void> {
  const session = new Session();
  try {
    session.connect();
    await session.post("HeapProfiler.collectGarbage");
  } catch (thrown) {
    process.emitWarning(`the memory of an idle thread was not collected: ${String(thrown)}`);
  } finally {
    session.disconnect();
  }
}
