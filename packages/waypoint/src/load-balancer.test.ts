import type { ClusterEndpoints, Ejection } from "@fairway/model";
import test from "ava";
import { ClusterState } from "./cluster-state.ts";
import { cluster, endpoint } from "./test-waypoint.ts";

/** The same numbers each run. */
function draws(): () => number {
  let state = 42;
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return state / 2 ** 31;
  };
}

const names = (count: number): string[] => Array.from({ length: count }, (_, index) => `e${index}`);

function endpoints(priorities: readonly (readonly string[])[], unhealthy: readonly string[] = []): ClusterEndpoints {
  return {
    cluster: "api",
    localities: priorities.map((group, priority) => ({
      locality: { region: "", zone: `${priority}`, subzone: "" },
      priority,
      weight: 1,
      endpoints: group.map((name) => endpoint(name, `10.2.0.${Number(name.slice(1)) + 1}`, 80, { health: unhealthy.includes(name) ? "unhealthy" : "healthy" })),
    })),
  };
}

function state(over: Parameters<typeof cluster>[1], given: ClusterEndpoints): ClusterState {
  const made = new ClusterState(cluster("api", over), { random: draws(), onOverflow: () => undefined, onEjected: () => undefined });
  made.update(cluster("api", over), given);
  return made;
}

function counts(made: ClusterState, picks: number, now = 0): Record<string, number> {
  const found: Record<string, number> = {};
  for (let pick = 0; pick < picks; pick++) {
    const name = made.pick(now, new Set())?.endpoint.workload.split("/").at(-1) ?? "nobody";
    found[name] = (found[name] ?? 0) + 1;
  }
  return found;
}

test("round robin takes turns", (t) => {
  t.deepEqual(counts(state({}, endpoints([names(3)])), 30), { e0: 10, e1: 10, e2: 10 });
});

test("least request prefers the less busy of two", (t) => {
  const made = state({ loadBalancing: "least-request" }, endpoints([names(2)]));
  for (const host of made.hosts()) if (host.endpoint.workload.endsWith("e0")) host.active = 100;
  const { e0 = 0, e1 = 0 } = counts(made, 400);
  t.true(e1 > 250 && e0 < 150, `${e0} ${e1}`);
});

test("the next priority gets what the first one's healthy endpoints do not cover", (t) => {
  t.deepEqual(counts(state({}, endpoints([["e0", "e1", "e2", "e3"], ["e4"]], ["e3"])), 100)["e4"], undefined, "three of four still cover all");
  const half = counts(state({}, endpoints([["e0", "e1", "e2", "e3"], ["e4"]], ["e2", "e3"])), 2_000);
  t.true(Math.abs((half["e4"] ?? 0) - 600) < 120, `${half["e4"]}`);
  t.deepEqual(Object.keys(counts(state({}, endpoints([["e0"], ["e1"]], ["e0"])), 50)), ["e1"]);
});

test("nobody healthy, nobody asked", (t) => {
  t.deepEqual(counts(state({}, endpoints([["e0"]], ["e0"])), 1), { nobody: 1 });
  t.deepEqual(counts(state({}, endpoints([])), 1), { nobody: 1 });
});

test("an endpoint that was tried is avoided as long as there is another", (t) => {
  const made = state({}, endpoints([names(2)]));
  const [first] = [...made.hosts()];
  for (let pick = 0; pick < 50; pick++) t.not(made.pick(0, new Set([first?.key ?? ""])), first);
  t.truthy(made.pick(0, new Set([...made.hosts()].map(({ key }) => key))));
});

const ejection: Ejection = { consecutiveErrors: 3, consecutiveGatewayErrors: 2, baseEjectionMs: 1_000, maxEjectionMs: 1_500, maxEjectedPercent: 50 };

test("an endpoint that fails in a row is left out for a while, longer the next time, and never too many at once", (t) => {
  const made = state({ ejection }, endpoints([names(2)]));
  const [bad, good] = [...made.hosts()];
  if (bad === undefined || good === undefined) return t.fail();
  made.observe(bad, { kind: "answer", status: 500 }, 0);
  made.observe(bad, { kind: "answer", status: 200 }, 0);
  made.observe(bad, { kind: "answer", status: 500 }, 0);
  made.observe(bad, { kind: "answer", status: 500 }, 0);
  t.false(bad.health.isOut(0), "a success in between starts the count anew");
  made.observe(bad, { kind: "answer", status: 500 }, 0);
  t.true(bad.health.isOut(999));
  t.false(bad.health.isOut(1_000));
  made.observe(good, { kind: "failure" }, 0);
  made.observe(good, { kind: "failure" }, 0);
  t.false(good.health.isOut(1), "half of the endpoints are out already");
  made.observe(bad, { kind: "failure" }, 1_000);
  made.observe(bad, { kind: "failure" }, 1_000);
  t.true(bad.health.isOut(2_499));
  t.false(bad.health.isOut(2_500), "no longer than the longest");
});

test("health and turns outlive a change of the list; who is not in it any more is let go", (t) => {
  const made = state({ ejection }, endpoints([names(2)]));
  const [bad] = [...made.hosts()];
  if (bad === undefined) return t.fail();
  for (let failure = 0; failure < 2; failure++) made.observe(bad, { kind: "failure" }, 0);
  let drained = 0;
  bad.pools.set("http1", { send: () => Promise.reject(new Error("no")), drain: () => void drained++, destroy: () => undefined });
  made.update(cluster("api", { ejection }), endpoints([names(3)]));
  t.true([...made.hosts()].find(({ key }) => key === bad.key)?.health.isOut(1));
  t.is(drained, 0);
  made.update(cluster("api", { ejection }), endpoints([["e1", "e2"]]));
  t.is(drained, 1);
});
