/** The state-of-the-world protocol, rule by rule (waypoint contract 4.2). */
import test from "ava";
import { type Change, sotwConversation } from "./test-session.ts";

/** A client that asked for everything of clusters and listeners, and by name for the rest, as Envoy does. */
async function connected(initial: Change) {
  const client = sotwConversation();
  await client.change(initial);
  client.ask("cds");
  client.ask("eds", { resourceNames: Object.keys(initial.eds ?? {}) });
  client.ask("lds");
  client.ask("rds", { resourceNames: Object.keys(initial.rds ?? {}) });
  return client;
}

test("clusters and listeners come as the full set each time, endpoints and routes only as what changed", async (t) => {
  const client = sotwConversation();
  await client.change({ cds: { a: "a1", b: "b1" }, eds: { a: "a1", b: "b1" } });
  client.ask("cds");
  client.ask("eds", { resourceNames: ["a", "b"] });
  client.ack();
  client.ack({ resourceNames: ["a", "b"] });
  t.deepEqual(client.heard(), ["cds a1 b1", "eds a1 b1"]);
  await client.change({ eds: { a: "a2" } });
  client.ack({ resourceNames: ["a", "b"] });
  t.deepEqual(client.heard(), ["eds a2"]);
  await client.change({ cds: { a: "a2" } });
  t.deepEqual(client.heard(), ["cds a2 b1"]);
});

test("what is missing from a full set is gone; the last one leaves an empty set", async (t) => {
  const client = sotwConversation();
  await client.change({ cds: { a: "a1", b: "b1" } });
  client.ask("cds");
  client.ack();
  await client.change({ cds: { a: undefined } });
  client.ack();
  await client.change({ cds: { b: undefined } });
  t.deepEqual(client.heard(), ["cds a1 b1", "cds b1", "cds"]);
});

test("a removal of endpoints or routes is not said: they go with their cluster and listener", async (t) => {
  const client = await connected({ eds: { a: "a1" }, rds: { r: "r1" } });
  for (const resourceNames of [[], ["a"], [], ["r"]]) client.ack({ resourceNames });
  t.deepEqual(client.heard(), ["cds", "eds a1", "lds", "rds r1"]);
  await client.change({ eds: { a: undefined }, rds: { r: undefined } });
  t.deepEqual(client.heard(), []);
  await client.change({ eds: { a: "a2" } });
  t.deepEqual(client.heard(), ["eds a2"], "and the silence is not waited for");
});

test("versions say what the client holds: equal on every stream, another after every change", async (t) => {
  const [one, two] = [sotwConversation(), sotwConversation()];
  for (const client of [one, two]) {
    await client.change({ cds: { a: "a1" } });
    client.ask("cds");
    client.ack();
  }
  t.is(one.told[0]?.response.versionInfo, two.told[0]?.response.versionInfo);
  await one.change({ cds: { a: "a2" } });
  t.not(one.told[1]?.response.versionInfo, one.told[0]?.response.versionInfo);
  t.not(one.told[1]?.response.nonce, one.told[0]?.response.nonce);
});

test("a request that answers an older response is ignored, and the next one is honoured", async (t) => {
  const client = sotwConversation();
  await client.change({ eds: { a: "a1", b: "b1" } });
  client.ask("eds", { resourceNames: ["a"] });
  client.ack({ resourceNames: ["a"] });
  await client.change({ eds: { a: "a2" } });
  t.deepEqual(client.heard(), ["eds a1", "eds a2"]);
  client.ask("eds", { resourceNames: ["a", "b"], responseNonce: client.told[0]?.response.nonce ?? "" });
  t.is(client.stale, 1);
  t.deepEqual(client.heard(), []);
  client.ack({ resourceNames: ["a", "b"] });
  t.deepEqual(client.heard(), ["eds b1"]);
});

test("a refusal keeps the client's version in force: nothing is sent again until something changes", async (t) => {
  const client = sotwConversation();
  await client.change({ cds: { a: "a1" } });
  client.ask("cds");
  client.nack("a: no such balancing");
  t.deepEqual(client.status("cds")?.rejected, new Map([["a", "no such balancing"]]));
  await client.clock.advance(60_000);
  t.deepEqual(client.heard(), ["cds a1"]);
  await client.change({ cds: { a: "a2" } });
  client.ack();
  t.deepEqual(client.heard(), ["cds a2"]);
  t.is(client.status("cds")?.lastError, undefined);
});

test("an answer without news is not answered, and neither is a change that says the same", async (t) => {
  const client = sotwConversation();
  await client.change({ cds: { a: "a1" }, eds: { a: "a1" } });
  client.ask("cds");
  client.ask("eds", { resourceNames: ["a"] });
  client.ack();
  client.ack({ resourceNames: ["a"] });
  client.heard();
  await client.change({ cds: { a: "a1" }, eds: { a: "a1" } });
  client.ask("cds", { responseNonce: client.told[0]?.response.nonce ?? "" });
  t.deepEqual(client.heard(), []);
});

test("a name that is added is sent even when it did not change; one that is given up is followed no more", async (t) => {
  const client = sotwConversation();
  await client.change({ eds: { a: "a1", b: "b1" } });
  client.ask("eds", { resourceNames: ["a", "b"] });
  client.ack({ resourceNames: ["a"] });
  await client.change({ eds: { b: "b2" } });
  t.deepEqual(client.heard(), ["eds a1 b1"]);
  client.ask("eds", { resourceNames: ["a", "b"], responseNonce: client.told[0]?.response.nonce ?? "" });
  client.ack({ resourceNames: ["a", "b"] });
  t.deepEqual(client.heard(), ["eds b2"]);
  client.ask("eds", { resourceNames: ["b"], responseNonce: client.told[1]?.response.nonce ?? "" });
  client.ask("eds", { resourceNames: ["a", "b"], responseNonce: client.told[1]?.response.nonce ?? "" });
  t.deepEqual(client.heard(), ["eds a1"], "asked for again");
});

test("listeners by name: the full set is what was named, and adding a name sends them all", async (t) => {
  const client = sotwConversation();
  await client.change({ lds: { a: "a1", b: "b1", c: "c1" } });
  client.ask("lds", { resourceNames: ["a"] });
  client.ack({ resourceNames: ["a", "b"] });
  client.ack({ resourceNames: ["a", "b"] });
  t.deepEqual(client.heard(), ["lds a1", "lds a1 b1"]);
  await client.change({ lds: { c: "c2" } });
  t.deepEqual(client.heard(), []);
  await client.change({ lds: { b: "b2" } });
  t.deepEqual(client.heard(), ["lds a1 b2"]);
  client.ack({ resourceNames: ["a"] });
  t.deepEqual(client.heard(), [], "a name that is given up needs no response");
});

test("naming nothing means everything at first, and nothing after anything was named", async (t) => {
  const client = sotwConversation();
  await client.change({ lds: { a: "a1", b: "b1" }, cds: { c: "c1" } });
  client.ask("lds", { resourceNames: ["a"] });
  client.ack({ resourceNames: [] });
  await client.change({ lds: { a: "a2", b: "b2" } });
  t.deepEqual(client.heard(), ["lds a1"]);
  client.ask("cds", { resourceNames: ["*"] });
  client.ack({ resourceNames: ["*"] });
  await client.change({ cds: { d: "d1" } });
  client.ack({ resourceNames: [] });
  await client.change({ cds: { d: "d2" } });
  t.deepEqual(client.heard(), ["cds c1", "cds c1 d1"]);
});

test("everything gives way to names", async (t) => {
  const client = sotwConversation();
  await client.change({ lds: { a: "a1", b: "b1" } });
  client.ask("lds");
  client.ack({ resourceNames: ["b"] });
  client.ack({ resourceNames: ["b"] });
  await client.change({ lds: { a: "a2" } });
  t.deepEqual(client.heard(), ["lds a1 b1", "lds b1"]);
});

test("names that are not there yet are remembered; an empty full set says so, an empty named set says nothing", async (t) => {
  const client = sotwConversation();
  client.ask("lds", { resourceNames: ["later"] });
  client.ask("rds", { resourceNames: ["later"] });
  t.deepEqual(client.heard(), ["lds"]);
  client.ack({ resourceNames: ["later"] });
  await client.change({ lds: { later: "l1" }, rds: { later: "r1" } });
  client.ack({ resourceNames: ["later"] });
  t.deepEqual(client.heard(), ["lds l1", "rds r1"]);
});

test("the order is that of the delta protocol: make before break, and endpoints again after their cluster", async (t) => {
  const client = await connected({ cds: { old: "c-old" }, eds: { old: "e-old", new: "e-new" }, lds: { t: "t-old" }, rds: { r: "r-old" } });
  const names = (type: string): string[] => (type === "eds" ? ["old", "new"] : type === "rds" ? ["r"] : []);
  const order: string[] = [];
  const settle = (): void => {
    for (let step = 0; step < 12; step++) {
      const last = client.told.at(-1);
      order.push(...client.heard());
      client.ack({ resourceNames: last === undefined ? [] : names(last.type) });
    }
  };
  settle();
  order.length = 0;
  await client.change({ cds: { old: undefined, new: "c-new" }, lds: { t: "t-new" }, rds: { r: "r-new" } });
  settle();
  t.deepEqual(order, ["cds c-new c-old", "eds e-new", "lds t-new", "rds r-new", "cds c-new"]);
});
