import { getHeapStatistics } from "node:v8";
import test from "ava";
import { ManualClock } from "./clock.ts";
import { releaseMemoryAtRest, type ThreadMemory, threadMemory } from "./memory-release.ts";

const megabyte = 1_024 * 1_024;
const period = 10_000;

/** Memory as a test says it is; what is garbage goes with a collection. */
class FakeMemory implements ThreadMemory {
  share = 0;
  live = 20 * megabyte;
  garbage = 0;
  /** Of others in the process, or free and kept by the allocator. */
  elsewhere = 0;
  collections = 0;

  busy(): number {
    return this.share;
  }

  size(): number {
    return this.live + this.garbage;
  }

  resident(): number {
    return this.size() + this.elsewhere;
  }

  async collect(): Promise<void> {
    this.collections += 1;
    this.garbage = 0;
  }
}

function atRest(): { readonly clock: ManualClock; readonly memory: FakeMemory; readonly release: Disposable; readonly calls: string[] } {
  const [clock, memory, calls] = [new ManualClock(), new FakeMemory(), [] as string[]];
  const release = releaseMemoryAtRest({ clock, memory, afterwards: () => void calls.push("afterwards") });
  return { clock, memory, release, calls };
}

test("what loading the code left is collected in the first idle period, once", async (t) => {
  const { clock, memory, calls } = atRest();
  t.is(memory.collections, 0);
  await clock.advance(period);
  t.is(memory.collections, 1);
  t.deepEqual(calls, ["afterwards"]);
  await clock.advance(10 * period);
  t.is(memory.collections, 1);
});

test("a busy thread is left alone however large it is, and collected once it is idle", async (t) => {
  const { clock, memory } = atRest();
  memory.share = 0.5;
  memory.garbage = 500 * megabyte;
  await clock.advance(10 * period);
  t.is(memory.collections, 0);
  memory.share = 0.01;
  await clock.advance(period);
  t.is(memory.collections, 1);
  t.is(memory.garbage, 0);
});

test("a thread that grew by little is not stopped for it", async (t) => {
  const { clock, memory } = atRest();
  await clock.advance(period);
  memory.garbage = 11 * megabyte;
  await clock.advance(5 * period);
  t.is(memory.collections, 1);
  memory.garbage = 13 * megabyte;
  await clock.advance(period);
  t.is(memory.collections, 2);
});

test("what is still needed after a collection is not collected again", async (t) => {
  const { clock, memory } = atRest();
  memory.live = 300 * megabyte;
  await clock.advance(10 * period);
  t.is(memory.collections, 1);
});

test("what the allocator keeps is handed back though the heap has not grown, and only when idle", async (t) => {
  const { clock, memory, calls } = atRest();
  await clock.advance(period);
  memory.elsewhere = 100 * megabyte;
  memory.share = 0.5;
  await clock.advance(3 * period);
  t.is(calls.length, 1);
  memory.share = 0;
  memory.garbage = 11 * megabyte;
  await clock.advance(3 * period);
  t.is(calls.length, 2);
  t.is(memory.collections, 1);
  memory.garbage = 13 * megabyte;
  await clock.advance(period);
  t.is(memory.collections, 2);
});

test("nothing happens after disposal", async (t) => {
  const { clock, memory, release } = atRest();
  release[Symbol.dispose]();
  await clock.advance(3 * period);
  t.is(memory.collections, 0);
});

test("a real heap becomes smaller", async (t) => {
  const clock = new ManualClock();
  let garbage: object[] | undefined = Array.from({ length: 300_000 }, (_, index) => ({ index, name: `garbage ${index}` }));
  t.is(garbage.length, 300_000);
  const full = getHeapStatistics().total_physical_size;
  garbage = undefined;
  const { promise: released, resolve } = Promise.withResolvers<void>();
  using _release = releaseMemoryAtRest({ clock, memory: { ...threadMemory(), busy: () => 0 }, afterwards: resolve });
  await clock.advance(period);
  await released;
  t.true(getHeapStatistics().total_physical_size < full - 10 * megabyte);
});

test("a thread that computes is busy", (t) => {
  const memory = threadMemory();
  const until = performance.now() + 50;
  while (performance.now() < until);
  t.true(memory.busy() > 0.1);
  t.true(memory.size() > megabyte);
});
