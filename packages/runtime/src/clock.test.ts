import test from "ava";
import { ManualClock } from "./clock.ts";

test("timers run in order of their time, and only when time reached them", async (t) => {
  const clock = new ManualClock();
  const ran: string[] = [];
  clock.schedule(20, () => ran.push("late"));
  clock.schedule(10, () => ran.push("early"));
  const cancelled = clock.schedule(15, () => ran.push("cancelled"));
  cancelled[Symbol.dispose]();
  await clock.advance(19);
  t.deepEqual(ran, ["early"]);
  await clock.advance(1);
  t.deepEqual(ran, ["early", "late"]);
});

test("sleep ends with the signal's reason when it aborts first", async (t) => {
  const clock = new ManualClock();
  const controller = new AbortController();
  const reason = new Error("stop");
  const sleeping = clock.sleep(1_000, { signal: controller.signal });
  controller.abort(reason);
  t.is(await t.throwsAsync(sleeping), reason);
});
