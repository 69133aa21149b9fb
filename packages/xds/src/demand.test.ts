import { errorCode, ManualClock } from "@fairway/runtime";
import test from "ava";
import { Demand, type DemandLimits } from "./demand.ts";

const limits: DemandLimits = { maxNames: 4, idleMs: 10_000, absentMs: 1_000, answerTimeoutMs: 500 };
const never = { signal: new AbortController().signal };

function demand(change: Partial<DemandLimits> = {}) {
  const clock = new ManualClock();
  const asked: string[] = [];
  const released: string[] = [];
  const state = { live: true };
  const hooks = {
    subscribe: (names: readonly string[]) => void asked.push(...names),
    release: (names: readonly string[]) => void released.push(...names),
    live: () => state.live,
  };
  const wanted = new Demand({ clock, limits: { ...limits, ...change }, hooks });
  const answer = (what: { removed?: string[]; received?: string[]; refused?: string[] }): void =>
    wanted.answered({ removed: [], received: [], refused: [], ...what });
  return { clock, wanted, asked, released, answer, state };
}

test("a name is asked for once, however many wait, and never again while it is held", async (t) => {
  const { wanted, asked, answer } = demand();
  const waiting = Promise.all([wanted.fetch(["/10.0.0.1"], never), wanted.fetch(["/10.0.0.1"], never)]);
  answer({ received: ["/10.0.0.1"] });
  await waiting;
  await wanted.fetch(["/10.0.0.1"], never);
  t.deepEqual(asked, ["/10.0.0.1"]);
});

test("several names are waited for together", async (t) => {
  const { wanted, answer } = demand();
  let done = false;
  const waiting = wanted.fetch(["a", "b"], never).then(() => {
    done = true;
  });
  answer({ received: ["a"] });
  await new Promise((resolve) => setImmediate(resolve));
  t.false(done);
  answer({ removed: ["b"] });
  await waiting;
  t.true(done);
});

test("a wait without an answer ends at its deadline, and names what was asked for", async (t) => {
  const { wanted, clock } = demand();
  const waiting = t.throwsAsync(wanted.fetch(["/10.0.0.1"], never));
  await clock.advance(500);
  const error = await waiting;
  t.is(errorCode(error), "XDS_DEMAND_TIMEOUT");
  t.regex(error?.message ?? "", /within 500 ms what is at \/10\.0\.0\.1/);
});

test("a wait ends with its caller", async (t) => {
  const { wanted } = demand();
  const caller = new AbortController();
  const waiting = wanted.fetch(["a"], { signal: caller.signal });
  caller.abort(new Error("left"));
  await t.throwsAsync(waiting, { message: "left" });
});

test("that something does not exist is believed for a moment, then asked again", async (t) => {
  const { wanted, asked, clock, answer } = demand();
  const waiting = wanted.fetch(["a"], never);
  answer({ removed: ["a"] });
  await waiting;
  await wanted.fetch(["a"], never);
  t.deepEqual(asked, ["a"]);
  await clock.advance(1_000);
  const again = wanted.fetch(["a"], never);
  t.deepEqual(asked, ["a", "a"]);
  answer({ received: ["a"] });
  await again;
});

test("what was removed and sent again in one response is there", async (t) => {
  const { wanted, asked, clock, answer } = demand();
  const waiting = wanted.fetch(["a"], never);
  answer({ removed: ["a"], received: ["a"] });
  await waiting;
  await clock.advance(2_000);
  await wanted.fetch(["a"], never);
  t.deepEqual(asked, ["a"]);
});

test("what could not be read fails whoever asks for it, until it is asked again", async (t) => {
  const { wanted, clock, answer } = demand();
  const waiting = t.throwsAsync(wanted.fetch(["a"], never));
  answer({ refused: ["a"] });
  t.is(errorCode(await waiting), "XDS_DEMAND_REFUSED");
  t.is(errorCode(await t.throwsAsync(wanted.fetch(["a"], never))), "XDS_DEMAND_REFUSED");
  await clock.advance(1_000);
  const again = wanted.fetch(["a"], never);
  answer({ received: ["a"] });
  await t.notThrowsAsync(again);
});

test("names that nobody asks for are let go, pinned ones are kept until they are gone", async (t) => {
  const { wanted, released, clock, answer } = demand();
  wanted.pin(["own"]);
  const waiting = wanted.fetch(["a", "b"], never);
  answer({ received: ["a", "b", "own"] });
  await waiting;
  await clock.advance(6_000);
  await wanted.fetch(["b"], never);
  await clock.advance(5_000);
  t.deepEqual(released, ["a"]);
  t.deepEqual([...wanted.names()].toSorted(), ["b", "own"]);
  answer({ removed: ["own"] });
  await clock.advance(20_000);
  t.is(wanted.size, 0);
});

test("over the bound the name unused longest makes room; when every name is waited for, a new one is refused", async (t) => {
  const { wanted, released, answer } = demand();
  for (const name of ["a", "b", "c", "d"]) {
    const waiting = wanted.fetch([name], never);
    answer({ received: [name] });
    await waiting;
  }
  await wanted.fetch(["a"], never);
  const waits = ["e", "f", "g", "h"].map((name) => wanted.fetch([name], never));
  t.deepEqual(released, ["b", "c", "d", "a"]);
  t.is(errorCode(await t.throwsAsync(wanted.fetch(["i"], never))), "XDS_DEMAND_OVERLOADED");
  t.is(wanted.size, 4);
  answer({ received: ["e", "f", "g", "h"] });
  await Promise.all(waits);
});

test("that something does not exist is forgotten after a moment, also when nobody asks again", async (t) => {
  const { wanted, released, clock, answer } = demand();
  const waiting = wanted.fetch(["a"], never);
  answer({ removed: ["a"] });
  await waiting;
  await clock.advance(2_000);
  t.deepEqual(released, ["a"]);
  t.is(wanted.size, 0);
});

test("while the control plane is away everything known is believed, and nothing let go", async (t) => {
  const { wanted, asked, released, clock, answer, state } = demand();
  const waiting = wanted.fetch(["a", "b", "c", "d"], never);
  answer({ received: ["a", "b", "c"], removed: ["d"] });
  await waiting;
  state.live = false;
  await clock.advance(60_000);
  await wanted.fetch(["a", "d"], never);
  t.is(errorCode(await t.throwsAsync(wanted.fetch(["e"], never))), "XDS_DEMAND_OVERLOADED");
  t.deepEqual([asked, released], [["a", "b", "c", "d"], []]);
  state.live = true;
  await clock.advance(60_000);
  t.deepEqual(released.toSorted(), ["a", "b", "c", "d"]);
});
