import test from "ava";
import type { Collection, CollectionEvent } from "./collection.ts";
import { derive, deriveMany, deriveOne, filter, index, join } from "./derive.ts";
import { MutableCollection } from "./keyed-store.ts";

interface Pod {
  name: string;
  node: string;
  labels: string[];
}
const pod = (name: string, node = "n1", ...labels: string[]): Pod => ({ name, node, labels });
const pods = (...initial: Pod[]): MutableCollection<Pod> => new MutableCollection(({ name }) => name, initial);

function record<T>(collection: Collection<T>): string[] {
  const seen: string[] = [];
  collection.subscribe((events: readonly CollectionEvent<T>[]) => seen.push(...events.map(({ type, key }) => `${type} ${key}`)));
  return seen;
}

test("a change that does not change the result is not told onwards", (t) => {
  const source = pods(pod("a"));
  const nodes = derive(source, ({ node }) => ({ node }));
  const seen = record(nodes);
  source.set(pod("a", "n1", "new-label"));
  t.deepEqual(seen, []);
  source.set(pod("a", "n2"));
  t.deepEqual(seen, ["updated a"]);
  source.delete("a");
  t.deepEqual(seen, ["updated a", "deleted a"]);
});

test("a change in what was fetched runs the transform for those who fetched it, and nobody else", (t) => {
  const source = pods(pod("a", "n1"), pod("b", "n2"));
  const nodes = new MutableCollection<{ name: string; zone: string }>(({ name }) => name);
  const runs: string[] = [];
  const zones = derive(source, ({ name, node }, fetch) => {
    runs.push(name);
    return fetch.get(nodes, node)?.zone;
  });
  runs.length = 0;
  nodes.set({ name: "n1", zone: "z" });
  t.deepEqual(runs, ["a"]);
  t.is(zones.get("a"), "z");
  t.is(zones.get("b"), undefined);
  source.set(pod("a", "n2"));
  runs.length = 0;
  nodes.set({ name: "n1", zone: "other" });
  t.deepEqual(runs, [], "a dependency that is no longer asked for is forgotten");
});

test("an index answers by value and wakes only those whose answer may have changed", (t) => {
  const source = pods(pod("a", "n1", "red"), pod("b", "n1", "red", "blue"), pod("c", "n1", "green"));
  const byLabel = index(source, ({ labels }) => labels);
  const colours = new MutableCollection<string>((name) => name, ["red", "blue"]);
  const runs: string[] = [];
  const members = derive(colours, (colour, fetch) => {
    runs.push(colour);
    return fetch
      .lookup(byLabel, colour)
      .map(({ name }) => name)
      .sort();
  });
  t.deepEqual(members.get("red"), ["a", "b"]);
  runs.length = 0;
  source.set(pod("c", "n1", "blue"));
  t.deepEqual(runs, ["blue"]);
  t.deepEqual(members.get("blue"), ["b", "c"]);
  source.delete("b");
  t.deepEqual([members.get("red"), members.get("blue")], [["a"], ["c"]]);
});

test("two objects that claim one key: the first has it, and the second gets it when the first gives up", (t) => {
  const source = pods(pod("a", "shared"), pod("b", "shared"));
  const byNode = deriveMany(source, ({ name, node }) => [[node, name] as const]);
  const seen = record(byNode);
  t.is(byNode.get("shared"), "a");
  source.set(pod("a", "elsewhere"));
  t.is(byNode.get("shared"), "b");
  t.deepEqual(seen, ["updated shared", "added elsewhere"], "nobody saw the key missing");
  source.delete("b");
  t.is(byNode.get("shared"), undefined);
});

test("several results per object come and go with it", (t) => {
  const source = pods(pod("a", "n", "x", "y"));
  const labels = deriveMany(source, ({ name, labels: all }) => all.map((label) => [`${name}/${label}`, label] as const));
  source.set(pod("a", "n", "y", "z"));
  t.deepEqual([...labels.entries()].map(([key]) => key).sort(), ["a/y", "a/z"]);
});

test("filter, join and a derived single value", (t) => {
  const first = pods(pod("a", "n1"));
  const second = pods(pod("a", "n2"), pod("b", "n2"));
  const both = join<Pod>(first, second);
  t.is(both.get("a")?.node, "n1");
  first.delete("a");
  t.is(both.get("a")?.node, "n2");
  const onFirst = filter(both, ({ node }) => node === "n1");
  const count = deriveOne("count", (fetch) => [...fetch.all(onFirst)].length);
  t.is(count.get("count"), 0);
  first.set(pod("x", "n1"));
  t.is(count.get("count"), 1);
});

test("a derived collection is in sync when its source and everything it asked for is", async (t) => {
  const gate = Promise.withResolvers<void>();
  const slow: Collection<string> = Object.assign(new MutableCollection<string>((name) => name), { synced: gate.promise });
  const source = pods(pod("a"));
  const derived = derive(source, (_pod, fetch) => fetch.get(slow, "x") ?? "none");
  let done = false;
  const waiting = derived.synced.then(() => {
    done = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  t.false(done);
  gate.resolve();
  await waiting;
  t.true(done);
});

test("a transform that throws for one object keeps what it said before, and harms no other", (t) => {
  const source = pods(pod("a"), pod("b"));
  const warnings: string[] = [];
  const listen = (warning: Error): void => void warnings.push(warning.message);
  process.on("warning", listen);
  t.teardown(() => process.off("warning", listen));
  const derived = derive(source, ({ name, node }) => {
    if (node === "bad") throw new Error(`cannot read ${name}`);
    return node;
  });
  source.set(pod("a", "bad"), pod("b", "n2"));
  t.is(derived.get("a"), "n1");
  t.is(derived.get("b"), "n2");
  source.set(pod("a", "n3"));
  t.is(derived.get("a"), "n3");
});
