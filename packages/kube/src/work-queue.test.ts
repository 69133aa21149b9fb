import { ManualClock, silentLogger } from "@fairway/runtime";
import test from "ava";
import { WorkQueue } from "./work-queue.ts";

test("a key that is added while it runs runs once more, and never twice at a time", async (t) => {
  const gate = Promise.withResolvers<void>();
  let running = 0;
  let runs = 0;
  await using queue = new WorkQueue({
    name: "test",
    log: silentLogger,
    clock: new ManualClock(),
    handle: async () => {
      running += 1;
      runs += 1;
      t.is(running, 1);
      await gate.promise;
      running -= 1;
    },
  });
  queue.add("a");
  queue.add("a");
  queue.add("a");
  gate.resolve();
  await queue.idle();
  t.is(runs, 2);
});

test("a failure is retried later each time, and other keys do not wait for it", async (t) => {
  const clock = new ManualClock();
  const runs: string[] = [];
  let failing = true;
  await using queue = new WorkQueue({
    name: "test",
    log: silentLogger,
    clock,
    concurrency: 1,
    retry: { initialMs: 100, maxMs: 1_000 },
    random: () => 0.5,
    handle: async (key) => {
      runs.push(key);
      if (key === "bad" && failing) throw new Error("no");
    },
  });
  queue.add("bad");
  queue.add("good");
  await queue.idle();
  t.deepEqual(runs, ["bad", "good"]);
  await clock.advance(100);
  await queue.idle();
  t.is(runs.length, 3);
  await clock.advance(100);
  t.is(runs.length, 3, "the second wait is longer");
  failing = false;
  await clock.advance(100);
  await queue.idle();
  t.is(runs.length, 4);
  t.is(queue.pending, 0);
});

test("no more runs than allowed at the same time", async (t) => {
  let running = 0;
  let most = 0;
  await using queue = new WorkQueue({
    name: "test",
    log: silentLogger,
    clock: new ManualClock(),
    concurrency: 3,
    handle: async () => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setImmediate(resolve));
      running -= 1;
    },
  });
  for (let number = 0; number < 20; number++) queue.add(String(number));
  await queue.idle();
  t.is(most, 3);
});
