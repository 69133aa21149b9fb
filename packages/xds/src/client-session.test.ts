/** The order of what one client is told, without a network: the clock and the answers are the test's. */
import { addressTypeUrl, authorizationTypeUrl, type DeltaDiscoveryRequest, type DeltaDiscoveryResponse } from "@fairway/protocol";
import { ManualClock } from "@fairway/runtime";
import test from "ava";
import fc from "fast-check";
import { ChangeFeed } from "./change-feed.ts";
import { ClientSession, type SessionLimits } from "./client-session.ts";
import { MutableResourceSource } from "./resource-source.ts";

test("on connecting, policies go first and the addresses wait for the answer, in whichever order they were asked for", async (t) => {
  const mesh = setup();
  await mesh.change({ policies: { p: "1" }, addresses: { w: "1" } });
  mesh.ask(addressTypeUrl);
  t.deepEqual(mesh.sent(), []);
  mesh.ask(authorizationTypeUrl);
  t.deepEqual(mesh.sent(), ["policy +p"]);
  mesh.ack();
  t.deepEqual(mesh.sent(), ["policy +p", "address +w"]);
});

test("a client that is no ztunnel is served its one type at once", async (t) => {
  const mesh = setup({ awaitsSiblings: false });
  await mesh.change({ policies: { p: "1" }, addresses: { w: "1" } });
  mesh.ask(addressTypeUrl);
  t.deepEqual(mesh.sent(), ["address +w"]);
});

test("a ztunnel that never asks for policies is served after a grace", async (t) => {
  const mesh = setup();
  await mesh.change({ addresses: { w: "1" } });
  mesh.ask(addressTypeUrl);
  await mesh.clock.advance(999);
  t.deepEqual(mesh.sent(), []);
  await mesh.clock.advance(1);
  t.deepEqual(mesh.sent(), ["address +w"]);
});

test("an empty type is answered all the same, because the client waits for it", (t) => {
  const mesh = setup();
  mesh.ask(authorizationTypeUrl);
  mesh.ask(addressTypeUrl);
  t.deepEqual(mesh.sent(), ["policy", "address"]);
});

test("a policy is answered before the address that came with it is sent", async (t) => {
  const mesh = await connected();
  await mesh.change({ addresses: { w: "names p" }, policies: { p: "1" } });
  t.deepEqual(mesh.sent(), ["policy +p"]);
  mesh.ack();
  t.deepEqual(mesh.sent(), ["policy +p", "address +w"]);
});

test("an address that changed again together with a new policy waits for that policy too", async (t) => {
  const mesh = await connected();
  await mesh.change({ addresses: { w: "names p" }, policies: { p: "1" } });
  await mesh.change({ addresses: { w: "names p and q", v: "1" }, policies: { q: "1" } });
  mesh.ack();
  t.deepEqual(mesh.sent(), ["policy +p", "policy +q"]);
  mesh.ack();
  t.deepEqual(mesh.sent(), ["policy +p", "policy +q", "address +v +w"]);
});

test("an address older than a waiting policy is not held up by it", async (t) => {
  const mesh = await connected();
  await mesh.change({ policies: { p: "1" } });
  await mesh.change({ addresses: { w: "names p" } });
  await mesh.change({ policies: { q: "1" } });
  t.deepEqual(mesh.sent(), ["policy +p"]);
  mesh.ack();
  t.deepEqual(mesh.sent(), ["policy +p", "policy +q", "address +w"]);
});

test("what changed at the source but was not handed out yet is not read in passing", async (t) => {
  const mesh = await connected();
  await mesh.change({ addresses: { w: "1" }, policies: { p: "1" } });
  mesh.set({ policies: { q: "1" }, addresses: { w: "names q" } });
  mesh.ack();
  t.deepEqual(mesh.sent(), ["policy +p"]);
  await mesh.clock.advance(15);
  t.deepEqual(mesh.sent(), ["policy +p", "policy +q"]);
});

test("a first full answer has no holes: it waits for what is about to be handed out", async (t) => {
  const mesh = setup({ awaitsSiblings: false });
  await mesh.change({ addresses: { v: "1", w: "1" } });
  mesh.set({ addresses: { w: "2" } });
  mesh.ask(addressTypeUrl);
  t.deepEqual(mesh.sent(), []);
  await mesh.clock.advance(15);
  t.deepEqual(mesh.sent(), ["address +v +w"]);
});

test("a refused policy counts as answered: such a client denies what it does not know", async (t) => {
  const mesh = await connected();
  await mesh.change({ addresses: { w: "names p" }, policies: { p: "1" } });
  mesh.nack("p: unknown match");
  t.deepEqual(mesh.sent(), ["policy +p", "address +w"]);
  const status = mesh.session.types.get(authorizationTypeUrl);
  t.is(status?.lastError, "p: unknown match");
  t.deepEqual(status?.rejected, new Map([["p", "unknown match"]]));
});

test("a refusal is remembered by name until that name is accepted", async (t) => {
  const mesh = await connected();
  await mesh.change({ policies: { a: "bad", b: "good", "c: d": "bad" } });
  mesh.nack("a: no; c: d: never; zzz: invented");
  const rejected = () => mesh.session.types.get(authorizationTypeUrl)?.rejected;
  t.deepEqual(
    rejected(),
    new Map([
      ["a", "no"],
      ["c: d", "never"],
    ]),
  );
  await mesh.change({ policies: { a: "better" } });
  mesh.ack();
  t.deepEqual(rejected(), new Map([["c: d", "never"]]));
  t.truthy(mesh.session.types.get(authorizationTypeUrl)?.lastError);
  await mesh.change({ policies: { "c: d": "better" } });
  mesh.ack();
  t.deepEqual(rejected(), new Map());
  t.is(mesh.session.types.get(authorizationTypeUrl)?.lastError, undefined);
});

test("a policy is removed only after the addresses that let go of it were answered", async (t) => {
  const mesh = await connected({ policies: { p: "1" }, addresses: { w: "names p" } });
  await mesh.change({ policies: { p: undefined }, addresses: { w: "names nothing" } });
  t.deepEqual(mesh.sent(), ["address +w"]);
  mesh.ack();
  t.deepEqual(mesh.sent(), ["address +w", "policy -p"]);
});

test("removals do not wait for ever", async (t) => {
  const mesh = await connected({ policies: { p: "1" }, addresses: { w: "names p" } });
  await mesh.change({ policies: { p: undefined }, addresses: { w: "names nothing" } });
  await mesh.clock.advance(10_000);
  t.deepEqual(mesh.sent(), ["address +w", "policy -p"]);
});

test("a policy that comes back before its removal was sent is never removed", async (t) => {
  const mesh = await connected({ policies: { p: "1" }, addresses: { w: "names p" } });
  await mesh.change({ policies: { p: undefined }, addresses: { w: "names nothing" } });
  await mesh.change({ policies: { p: "2" } });
  mesh.ack();
  t.deepEqual(mesh.sent(), ["address +w", "policy +p"]);
});

test("one response is unanswered at a time, and the changes behind it merge into one", async (t) => {
  const mesh = await connected();
  await mesh.change({ addresses: { a: "1" } });
  for (const version of ["2", "3", "4"]) await mesh.change({ addresses: { a: version, b: version } });
  await mesh.change({ addresses: { b: undefined } });
  t.deepEqual(mesh.sent(), ["address +a"]);
  mesh.ack();
  t.deepEqual(mesh.sent(), ["address +a", "address +a -b"]);
});

test("a client that does not answer never gets the address, and is cut off", async (t) => {
  const mesh = await connected();
  await mesh.change({ policies: { p: "1" }, addresses: { w: "names p" } });
  await mesh.clock.advance(59_000);
  t.deepEqual(mesh.ended, []);
  await mesh.clock.advance(1_000);
  t.deepEqual(mesh.ended, ["answer-timeout"]);
  t.deepEqual(mesh.sent(), ["policy +p"]);
});

test("an answer with an old or invented nonce answers nothing", async (t) => {
  const mesh = await connected();
  await mesh.change({ policies: { p: "1" }, addresses: { w: "1" } });
  mesh.answer({ typeUrl: authorizationTypeUrl, responseNonce: "1" });
  mesh.answer({ typeUrl: authorizationTypeUrl, responseNonce: "999" });
  t.deepEqual(mesh.sent(), ["policy +p"]);
});

test("on reconnecting only what differs is sent, and what is gone is removed, addresses before policies", async (t) => {
  const mesh = setup();
  await mesh.change({ policies: { p: "1", q: "1" }, addresses: { v: "1", w: "1" } });
  const version = (source: MutableResourceSource, name: string) => source.get(name)?.version ?? "";
  mesh.ask(authorizationTypeUrl, {
    initialResourceVersions: new Map([
      ["p", version(mesh.policies, "p")],
      ["gone", "x"],
    ]),
  });
  mesh.ask(addressTypeUrl, {
    initialResourceVersions: new Map([
      ["v", "stale"],
      ["w", version(mesh.addresses, "w")],
      ["left", "x"],
    ]),
  });
  t.deepEqual(mesh.sent(), ["policy +q"]);
  mesh.ack();
  t.deepEqual(mesh.sent(), ["policy +q", "address +v -left"]);
  mesh.ack();
  t.deepEqual(mesh.sent(), ["policy +q", "address +v -left", "policy -gone"]);
});

test("on demand: nothing at first, then what is asked for by name or alias, and unknown names as removed", async (t) => {
  const mesh = setup();
  await mesh.change({ addresses: { w: "1", v: "1" } });
  mesh.ask(authorizationTypeUrl);
  mesh.ask(addressTypeUrl, { resourceNamesSubscribe: ["*"], resourceNamesUnsubscribe: ["*"] });
  t.deepEqual(mesh.sent(), ["policy", "address"]);
  mesh.ack();
  mesh.ack();
  mesh.ask(addressTypeUrl, { resourceNamesSubscribe: ["w"] });
  mesh.ack();
  mesh.ask(addressTypeUrl, { resourceNamesSubscribe: ["/alias-of-v"] });
  mesh.ack();
  mesh.ask(addressTypeUrl, { resourceNamesSubscribe: ["nobody"] });
  mesh.ack();
  t.deepEqual(mesh.sent().slice(2), ["address +w", "address +v", "address -nobody"]);
  await mesh.change({ addresses: { w: "2", v: "2", other: "1", nobody: "1" } });
  t.deepEqual(mesh.sent().slice(5), ["address +nobody +v +w"]);
  mesh.ack();
  mesh.ask(addressTypeUrl, { resourceNamesUnsubscribe: ["w"] });
  await mesh.change({ addresses: { w: "3" } });
  t.is(mesh.sent().length, 6);
});

test("on demand, a reconnecting client keeps what it held by name and is sent only what differs", async (t) => {
  const mesh = setup({ awaitsSiblings: false });
  await mesh.change({ addresses: { same: "1", newer: "2", unrelated: "1" } });
  const same = mesh.addresses.get("same")?.version ?? "";
  mesh.ask(addressTypeUrl, {
    resourceNamesSubscribe: ["*"],
    resourceNamesUnsubscribe: ["*"],
    initialResourceVersions: new Map([
      ["same", same],
      ["newer", "old"],
      ["gone", "old"],
    ]),
  });
  t.deepEqual(mesh.sent(), ["address +newer -gone"]);
  mesh.ack();
  await mesh.change({ addresses: { same: "2", unrelated: "2" } });
  t.deepEqual(mesh.sent(), ["address +newer -gone", "address +same"]);
});

test("too many names end the stream", async (t) => {
  const mesh = setup({ limits: { maxNamesPerType: 3 } });
  mesh.ask(addressTypeUrl, { resourceNamesSubscribe: ["a", "b", "c", "d"] });
  t.deepEqual(mesh.ended, ["too-many-names"]);
});

test("whatever happens in whatever order, no address overtakes a policy of the same batch, and all arrives in the end", async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.oneof(fc.constant("ack"), fc.constant("tick"), fc.record({ address: fc.nat(3), policy: fc.nat(3) })), { maxLength: 40 }),
      async (steps) => {
        const mesh = await connected();
        const known = new Map<string, number>();
        let turn = 0;
        const check = (): void => {
          for (const { typeUrl, resources } of mesh.takeNew()) {
            for (const { name, resource } of resources) {
              const body = String(resource?.value === undefined ? "" : Buffer.from(resource.value));
              if (typeUrl === authorizationTypeUrl) known.set(name, Number(body));
              // An address says which turn of which policy it needs.
              else {
                const [policy = "", needed = "0"] = body.split("@");
                if ((known.get(policy) ?? 0) < Number(needed)) t.fail(`address ${name} needs ${policy} of turn ${needed}, the client has ${known.get(policy)}`);
              }
            }
          }
        };
        for (const step of steps) {
          if (step === "ack") mesh.ack();
          else if (step === "tick") await mesh.clock.advance(15);
          else if (typeof step === "object") {
            turn++;
            mesh.set({ addresses: { [`w${step.address}`]: `p${step.policy}@${turn}` }, policies: { [`p${step.policy}`]: String(turn) } });
          }
          check();
        }
        await mesh.clock.advance(15);
        for (let round = 0; round < 6; round++) {
          check();
          mesh.ack();
        }
        check();
        for (const { name, body } of mesh.policies.all()) if (known.get(name) !== Number(String(Buffer.from(body)))) t.fail(`${name} did not arrive`);
      },
    ),
    { numRuns: 150 },
  );
  t.pass();
});

interface Change {
  readonly policies?: Readonly<Record<string, string | undefined>>;
  readonly addresses?: Readonly<Record<string, string | undefined>>;
}

const defaultLimits: SessionLimits = { answerTimeoutMs: 60_000, removalPatienceMs: 10_000, siblingGraceMs: 1_000, maxNamesPerType: 100 };

function setup({ awaitsSiblings = true, limits = {} }: { awaitsSiblings?: boolean; limits?: Partial<SessionLimits> } = {}) {
  const clock = new ManualClock();
  const policies = new MutableResourceSource(authorizationTypeUrl);
  const addresses = new MutableResourceSource(addressTypeUrl);
  const responses: DeltaDiscoveryResponse[] = [];
  const unanswered: DeltaDiscoveryResponse[] = [];
  const ended: string[] = [];
  let seen = 0;
  const feed = new ChangeFeed([policies, addresses], {
    clock,
    debounceMs: 15,
    onBatch: ({ epoch, names }) => {
      for (const [typeUrl, changed] of names) session.changed(typeUrl, changed, epoch);
      session.flush();
    },
  });
  const session = new ClientSession(
    {
      clock,
      sources: [policies, addresses],
      identifier: "test",
      limits: { ...defaultLimits, ...limits },
      stale: (typeUrl) => feed.stale(typeUrl),
      currentEpoch: () => feed.epoch,
    },
    {
      send: (response) => {
        responses.push(response);
        unanswered.push(response);
        return true;
      },
      end: (reason) => ended.push(reason),
      statusChanged: () => undefined,
      rejected: () => undefined,
    },
    { awaitsSiblings },
  );
  const answer = (request: Partial<DeltaDiscoveryRequest> & { typeUrl: string }): void => {
    session.handle({
      node: undefined,
      resourceNamesSubscribe: [],
      resourceNamesUnsubscribe: [],
      initialResourceVersions: new Map(),
      responseNonce: "",
      errorDetail: undefined,
      ...request,
    });
  };
  const reply = (errorDetail: DeltaDiscoveryRequest["errorDetail"]): void => {
    const response = unanswered.shift();
    if (response !== undefined) answer({ typeUrl: response.typeUrl, responseNonce: response.nonce, errorDetail });
  };
  const set = ({ policies: ps = {}, addresses: as = {} }: Change): void => {
    for (const [source, entries] of [
      [addresses, as],
      [policies, ps],
    ] as const) {
      source.update({
        set: Object.entries(entries).flatMap(([name, body]) => (body === undefined ? [] : [{ name, body: Buffer.from(body), aliases: [`/alias-of-${name}`] }])),
        delete: Object.entries(entries).flatMap(([name, body]) => (body === undefined ? [name] : [])),
      });
    }
  };
  return {
    clock,
    session,
    policies,
    addresses,
    ended,
    answer,
    set,
    ask: (typeUrl: string, request: Partial<DeltaDiscoveryRequest> = {}) => answer({ typeUrl, ...request }),
    ack: () => reply(undefined),
    nack: (message: string) => reply({ code: 0, message, details: [] }),
    async change(change: Change) {
      set(change);
      await clock.advance(15);
    },
    takeNew: () => {
      const fresh = responses.slice(seen);
      seen = responses.length;
      return fresh;
    },
    forgetSent: () => {
      responses.splice(0);
      seen = 0;
    },
    /** One text per response: the type, what was set, what was removed. */
    sent: () =>
      responses.map(({ typeUrl, resources, removedResources }) =>
        [
          typeUrl === addressTypeUrl ? "address" : "policy",
          ...resources.map(({ name }) => `+${name}`).toSorted(),
          ...removedResources.map((name) => `-${name}`).toSorted(),
        ].join(" "),
      ),
  };
}

/** A ztunnel that has had its first answers. */
async function connected(initial: Change = {}) {
  const mesh = setup();
  await mesh.change(initial);
  mesh.ask(authorizationTypeUrl);
  mesh.ask(addressTypeUrl);
  mesh.ack();
  mesh.ack();
  mesh.forgetSent();
  return mesh;
}
