/** The order in which a waypoint is told (waypoint contract 4.3, 4.4), in the delta protocol. */
import test from "ava";
import fc from "fast-check";
import { type Change, deltaConversation, sotwConversation, type Type } from "./test-session.ts";

const all: readonly Type[] = ["cds", "eds", "lds", "rds"];

async function connected(initial: Change = {}) {
  const client = deltaConversation();
  await client.change(initial);
  for (const type of all) client.ask(type);
  client.ackAll();
  client.heard();
  return client;
}

const whole: Change = { cds: { c: "1" }, eds: { c: "1" }, lds: { t: "1" }, rds: { r: "1" } };

test("clusters, endpoints, targets, routes: each is sent when the one before was answered", async (t) => {
  const client = await connected();
  await client.change(whole);
  for (const expected of ["cds +c", "eds +c", "lds +t", "rds +r"]) {
    t.deepEqual(client.heard(), [expected]);
    client.ack();
  }
  t.deepEqual(client.heard(), []);
});

test("removals come in reverse, after the upserts that let go", async (t) => {
  const client = await connected(whole);
  await client.change({ cds: { c: undefined, d: "1" }, eds: { c: undefined, d: "1" }, lds: { t: undefined }, rds: { r: undefined, s: "1" } });
  const order: string[] = [];
  for (let step = 0; step < 6; step++) {
    order.push(...client.heard());
    client.ack();
  }
  t.deepEqual(order, ["cds +d", "eds +d", "rds +s -r", "lds -t", "eds -c", "cds -c"]);
});

test("a refused target counts as answered, and is known by name with its reason", async (t) => {
  const client = await connected();
  await client.change({ lds: { t: "1", u: "1" }, rds: { r: "1" } });
  client.nack("t: an unsupported filter");
  t.deepEqual(client.heard(), ["lds +t +u", "rds +r"]);
  t.deepEqual(client.status("lds")?.rejected, new Map([["t", "an unsupported filter"]]));
  client.ack();
  await client.change({ lds: { t: undefined } });
  client.ack();
  t.deepEqual(client.status("lds")?.rejected, new Map(), "what is removed is refused no longer");
});

test("the endpoints of a cluster that changed are sent again, although they are the same", async (t) => {
  const client = await connected({ cds: { c: "1", d: "1" }, eds: { c: "1", d: "1" } });
  await client.change({ cds: { c: "2" } });
  t.deepEqual(client.heard(), ["cds +c"]);
  client.ack();
  t.deepEqual(client.heard(), ["eds +c"]);
});

test("endpoints are repeated only to those who asked for them", async (t) => {
  const client = deltaConversation();
  await client.change({ cds: { c: "1", d: "1" }, eds: { c: "1", d: "1" } });
  client.ask("cds");
  client.ask("eds", { resourceNamesSubscribe: ["d"] });
  client.ackAll();
  client.heard();
  await client.change({ cds: { c: "2", d: "2" } });
  client.ackAll();
  t.deepEqual(client.heard(), ["cds +c +d", "eds +d"]);
});

test("a cluster that changed while the client was away has its endpoints sent, though the client kept them", async (t) => {
  const client = deltaConversation();
  await client.change({ cds: { c: "2" }, eds: { c: "1", d: "1" } });
  const known = await connected({ eds: { c: "1", d: "1" } });
  const version = (name: string): string => known.told.flatMap(({ response }) => response.resources).find((resource) => resource.name === name)?.version ?? "";
  const kept = new Map([
    ["c", version("c")],
    ["d", version("d")],
  ]);
  client.ask("cds", { initialResourceVersions: new Map([["c", "old"]]) });
  client.ask("eds", { initialResourceVersions: kept });
  client.ackAll();
  t.deepEqual(client.heard(), ["cds +c", "eds +c"]);
});

test("a name that is not there is said at once, whatever is unanswered elsewhere", async (t) => {
  const client = await connected();
  await client.change({ rds: { r: "1" } });
  t.deepEqual(client.heard(), ["rds +r"]);
  client.ask("cds", { resourceNamesSubscribe: ["nobody"] });
  t.deepEqual(client.heard(), ["cds -nobody"]);
});

test("a name that was asked for and came to be is sent", async (t) => {
  const client = deltaConversation();
  client.ask("eds", { resourceNamesSubscribe: ["later"] });
  client.ack();
  await client.change({ eds: { later: "1", other: "1" } });
  t.deepEqual(client.heard(), ["eds -later", "eds +later"]);
});

test("giving up a name that everything still covers is answered, with the resource or its absence", async (t) => {
  const client = deltaConversation();
  await client.change({ cds: { c: "1" } });
  client.ask("cds", { resourceNamesSubscribe: ["*", "c", "gone"] });
  client.ackAll();
  client.heard();
  client.ask("cds", { resourceNamesUnsubscribe: ["c"] });
  client.ackAll();
  client.ask("cds", { resourceNamesUnsubscribe: ["gone"] });
  t.deepEqual(client.heard(), ["cds +c", "cds -gone"]);
});

test("a subscription that changes in the answer to something older is honoured all the same", async (t) => {
  const client = deltaConversation();
  await client.change({ eds: { a: "1", b: "1" } });
  client.ask("eds", { resourceNamesSubscribe: ["a"] });
  client.ackAll();
  client.heard();
  client.ask("eds", { resourceNamesSubscribe: ["b"], responseNonce: "99" });
  t.deepEqual(client.heard(), ["eds +b"]);
});

const steps = fc.array(
  fc.oneof(
    fc.constant("ack" as const),
    fc.constant("nack" as const),
    fc.constant("tick" as const),
    fc.record({ type: fc.constantFrom(...all), name: fc.constantFrom("a", "b", "c"), present: fc.boolean() }),
  ),
  { maxLength: 60 },
);
const protocols = [
  ["delta", deltaConversation, (_type: Type) => ({})],
  ["state of the world", sotwConversation, (type: Type) => (type === "eds" || type === "rds" ? { resourceNames: ["a", "b", "c"] } : {})],
] as const;

for (const [protocol, converse, names] of protocols) {
  test(`whatever changes and is answered in whatever order, the client ends with what the sources hold: ${protocol}`, async (t) => {
    await fc.assert(
      fc.asyncProperty(steps, async (course) => {
        const client = converse();
        const held = new Map<Type, Map<string, string>>(all.map((type) => [type, new Map()]));
        const wanted = new Map<Type, Map<string, string>>(all.map((type) => [type, new Map()]));
        let seen = 0;
        let turn = 0;
        const apply = (): void => {
          for (const { type, text } of client.told.slice(seen)) {
            const of = held.get(type) ?? new Map<string, string>();
            // What a state-of-the-world client holds of clusters and listeners is exactly the last set.
            if (protocol !== "delta" && (type === "cds" || type === "lds")) of.clear();
            for (const word of text.split(" ").slice(1)) {
              const name = word.replace(/^[+-]/, "").slice(0, 1);
              if (word.startsWith("-")) of.delete(name);
              else of.set(name, word);
            }
          }
          seen = client.told.length;
        };
        const answer = (kind: "ack" | "nack"): void => {
          const type = client.oldest;
          if (type === undefined) return;
          if (kind === "ack") client.ack(names(type) as never);
          else client.nack("a: no", names(type) as never);
        };
        for (const type of all) client.ask(type, names(type) as never);
        for (const step of course) {
          if (step === "ack" || step === "nack") answer(step);
          else if (step === "tick") await client.clock.advance(15);
          else {
            const body = `${step.name}${++turn}`;
            if (step.present) wanted.get(step.type)?.set(step.name, body);
            else wanted.get(step.type)?.delete(step.name);
            client.set({ [step.type]: { [step.name]: step.present ? body : undefined } });
          }
          apply();
        }
        await client.clock.advance(15);
        for (let round = 0; round < 20; round++) {
          answer("ack");
          apply();
        }
        for (const type of all) {
          const [found, expected] = [held.get(type) ?? new Map(), wanted.get(type) ?? new Map()];
          // Endpoints and routes of the older protocol go with their cluster and listener, unsaid.
          const unsaid = protocol !== "delta" && (type === "eds" || type === "rds");
          if (!unsaid) t.deepEqual([...found.keys()].toSorted(), [...expected.keys()].toSorted(), type);
          if (protocol !== "delta")
            for (const [name, body] of expected) if (found.get(name) !== body) t.fail(`${type} ${name} is ${found.get(name)}, not ${body}`);
        }
      }),
      { numRuns: 120 },
    );
    t.pass();
  });
}
