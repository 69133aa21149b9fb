import type { Probe } from "@fairway/kube";
import { ManualClock } from "@fairway/runtime";
import test from "ava";
import { ProbeCount, probeLoop, type Verdict } from "./probe-loop.ts";

test("a verdict changes only after its threshold of equal results in a row", (t) => {
  const count = new ProbeCount({ successThreshold: 2, failureThreshold: 3 });
  const results = [true, true, true, false, false, true, false, false, false, true, true];
  t.deepEqual(
    results.map((ok) => count.add(ok)),
    [undefined, "success", undefined, undefined, undefined, undefined, undefined, undefined, "failure", undefined, "success"],
  );
});

interface Run {
  readonly clock: ManualClock;
  readonly attempts: number[];
  readonly verdicts: Verdict[];
  readonly failures: number;
  readonly done: Promise<void>;
  answer: boolean;
  stop(): void;
}

function run(probe: Probe, eager: boolean, stopAt?: Verdict): Run {
  const clock = new ManualClock();
  const controller = new AbortController();
  const state = { clock, attempts: [] as number[], verdicts: [] as Verdict[], failures: 0, answer: false, stop: () => controller.abort() };
  const done = probeLoop({
    probe,
    clock,
    signal: controller.signal,
    eager,
    attempt: () => {
      state.attempts.push(clock.now());
      return Promise.resolve({ ok: state.answer, message: "" });
    },
    onFailure: () => {
      state.failures += 1;
    },
    onVerdict: (verdict) => {
      state.verdicts.push(verdict);
      return verdict === stopAt ? "stop" : "continue";
    },
  });
  return Object.assign(state, { done });
}

test("the first attempt waits for the initial delay and the others for the period", async (t) => {
  const probing = run({ initialDelaySeconds: 5, periodSeconds: 10, failureThreshold: 2 }, false);
  await probing.clock.advance(4_999);
  t.deepEqual(probing.attempts, []);
  await probing.clock.advance(20_001);
  t.deepEqual(probing.attempts, [5_000, 15_000, 25_000]);
  t.deepEqual(probing.verdicts, ["failure"]);
  probing.stop();
  await probing.done;
});

test("before the first success an eager probe asks more often, and only the period's failures count", async (t) => {
  const probing = run({ periodSeconds: 10, failureThreshold: 3 }, true);
  // The first attempt is under way before any timer is set.
  await new Promise((resolve) => setImmediate(resolve));
  await probing.clock.advance(1_000);
  t.true(probing.attempts.length > 3);
  t.is(probing.failures, 1);
  probing.answer = true;
  await probing.clock.advance(400);
  t.deepEqual(probing.verdicts, ["success"]);
  const asked = probing.attempts.length;
  await probing.clock.advance(9_000);
  t.is(probing.attempts.length, asked);
  probing.stop();
  await probing.done;
});

test("a listener may end the loop, and an aborted signal does", async (t) => {
  const probing = run({ periodSeconds: 1, failureThreshold: 1 }, false, "failure");
  await probing.done;
  t.is(probing.attempts.length, 1);
  const aborted = run({ initialDelaySeconds: 100 }, false);
  aborted.stop();
  await aborted.done;
  t.deepEqual(aborted.attempts, []);
});
