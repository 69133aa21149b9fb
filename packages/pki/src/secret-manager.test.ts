import { parseSpiffeId, type SpiffeId } from "@fairway/model";
import { errorCode, ManualClock, MeshError, silentLogger } from "@fairway/runtime";
import test from "ava";
import { Authority } from "./authority.ts";
import { type CaClient, localCaClient } from "./ca-client.ts";
import { verifyCsr } from "./csr.ts";
import { generateKeyPair } from "./key.ts";
import { SecretManager, type SecretManagerOptions } from "./secret-manager.ts";

const hourMs = 3_600_000;
const { signal } = new AbortController();
const id = (name: string): SpiffeId => parseSpiffeId(`spiffe://cluster.local/ns/default/sa/${name}`);

test("concurrent callers share one fetch and one certificate", async (t) => {
  const { secrets, asked } = setup();
  const [a, b] = await Promise.all([secrets.fetch(id("a"), { signal }), secrets.fetch(id("a"), { signal })]);
  t.is(a, b);
  t.is(a.identity, id("a"));
  t.deepEqual(asked, [id("a")]);
  t.is(await secrets.fetch(id("a"), { signal }), a);
});

test("a certificate is renewed at half of its life", async (t) => {
  const { secrets, asked, clock } = setup({ random: () => 1 });
  const first = await secrets.fetch(id("a"), { signal });
  const half = (first.notBefore + first.notAfter) / 2;
  await clock.advance(half - clock.now() - 1);
  t.is(asked.length, 1);
  await clock.advance(1);
  t.is(asked.length, 2);
  const second = await secrets.fetch(id("a"), { signal });
  t.not(second.serialNumber, first.serialNumber);
});

test("renewals of many identities are spread before half-life", async (t) => {
  let draw = 0;
  const { secrets, asked, clock } = setup({ random: () => (draw = (draw + 0.37) % 1) });
  await Promise.all(["a", "b", "c", "d"].map((name) => secrets.fetch(id(name), { signal })));
  await clock.advance(10.75 * hourMs);
  t.is(asked.length, 4);
  await clock.advance(0.6 * hourMs);
  t.true(asked.length > 4 && asked.length < 8, `${asked.length - 4} of 4 renewed`);
  await clock.advance(hourMs);
  t.is(asked.length, 8);
});

test("at most eight requests are in flight, the waiting connection goes before warm-up", async (t) => {
  const gate = gatedCa();
  const { secrets } = setup({ ca: gate.ca });
  for (let index = 0; index < 12; index++) secrets.prefetch(id(`w${index}`));
  t.is(gate.asked.length, 8);
  const urgent = secrets.fetch(id("urgent"), { signal });
  const raised = secrets.fetch(id("w11"), { signal });
  await gate.release();
  t.deepEqual(gate.asked.slice(8, 10).toSorted(), [id("urgent"), id("w11")].toSorted());
  t.true(gate.mostInFlight <= 8);
  while (gate.waiting > 0) await gate.release();
  t.is((await urgent).identity, id("urgent"));
  t.is((await raised).identity, id("w11"));
  t.is(gate.asked.length, 13);
});

test("a renewal waits behind warm-up", async (t) => {
  const gate = gatedCa();
  const { secrets, clock } = setup({ ca: gate.ca, maxInFlight: 1, random: () => 1 });
  const first = secrets.fetch(id("old"), { signal });
  await gate.release();
  await first;
  secrets.prefetch(id("busy"));
  await clock.advance(13 * hourMs);
  secrets.prefetch(id("new"));
  await gate.release();
  t.deepEqual(gate.asked, [id("old"), id("busy"), id("new")]);
});

test("failures back off per identity and delay nobody else", async (t) => {
  const { secrets, asked, clock } = setup({ random: () => 0.5, fails: (identity) => identity === id("bad") });
  t.is(errorCode(await t.throwsAsync(secrets.fetch(id("bad"), { signal }))), "PKI_CA_REFUSED");
  t.is((await secrets.fetch(id("good"), { signal })).identity, id("good"));
  const tries = (): number => asked.filter((identity) => identity === id("bad")).length;
  t.is(tries(), 1);
  await clock.advance(999);
  t.is(tries(), 1);
  await clock.advance(1);
  t.is(tries(), 2);
  await clock.advance(1_999);
  t.is(tries(), 2);
  await clock.advance(1);
  t.is(tries(), 3);
  await clock.advance(hourMs);
  const settled = tries();
  await clock.advance(150_000);
  t.is(tries(), settled + 1);
});

test("while nothing valid is held a caller gets the error at once, and the certificate after the next success", async (t) => {
  let broken = true;
  const { secrets, asked, clock } = setup({ random: () => 0.5, fails: () => broken });
  await t.throwsAsync(secrets.fetch(id("a"), { signal }));
  t.is(errorCode(await t.throwsAsync(secrets.fetch(id("a"), { signal }))), "PKI_CA_REFUSED");
  t.is(asked.length, 1);
  broken = false;
  await clock.advance(1_000);
  t.is((await secrets.fetch(id("a"), { signal })).identity, id("a"));
});

test("the old certificate serves until it expires while renewal fails, and not after", async (t) => {
  let broken = false;
  const { secrets, clock } = setup({ fails: () => broken });
  const first = await secrets.fetch(id("a"), { signal });
  broken = true;
  await clock.advance(first.notAfter - clock.now() - 1);
  t.is(await secrets.fetch(id("a"), { signal }), first);
  const state = secrets.states.current.get(id("a"));
  t.is(state?.kind, "unavailable");
  t.is(state?.kind === "unavailable" ? state.certificate : undefined, first);
  await clock.advance(1);
  await t.throwsAsync(secrets.fetch(id("a"), { signal }));
  const after = secrets.states.current.get(id("a"));
  t.is(after?.kind === "unavailable" ? after.certificate : first, undefined);
  broken = false;
  await clock.advance(200_000);
  t.is(secrets.states.current.get(id("a"))?.kind, "available");
});

test("the backoff starts anew after a success", async (t) => {
  let broken = true;
  const { secrets, asked, clock } = setup({ random: () => 0.5, fails: () => broken });
  await t.throwsAsync(secrets.fetch(id("a"), { signal }));
  await clock.advance(hourMs);
  broken = false;
  await clock.advance(150_000);
  t.is(secrets.states.current.get(id("a"))?.kind, "available");
  broken = true;
  await clock.advance(12 * hourMs);
  const before = asked.length;
  broken = false;
  t.true(before > 1);
  await clock.advance(hourMs);
  t.is(secrets.states.current.get(id("a"))?.kind, "available");
});

test("a CA that answers with another identity, no root or a foreign key is not believed", async (t) => {
  const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock: new ManualClock(Date.UTC(2026, 0, 1)) });
  const real = localCaClient(authority);
  const answers: [string, CaClient["sign"]][] = [
    ["another identity", async (request) => authority.sign({ publicKey: verifyCsr(request.csr).publicKey, identity: id("other"), ttlMs: 0 })],
    ["no root", async (request, options) => (await real.sign(request, options)).slice(0, 1)],
    ["nothing", async () => []],
    ["garbage", async () => ["hello", "world"]],
    ["a foreign key", async (request) => authority.sign({ publicKey: generateKeyPair().publicKey, identity: request.identity, ttlMs: 0 })],
  ];
  for (const [name, sign] of answers) {
    const { secrets } = setup({ ca: { sign, async [Symbol.asyncDispose]() {} } });
    t.is(errorCode(await t.throwsAsync(secrets.fetch(id("a"), { signal }), undefined, name)), "PKI_CA_BAD_ANSWER", name);
  }
});

test("a forgotten identity is gone, its rotation stops, and whoever still waits is told", async (t) => {
  const gate = gatedCa();
  const { secrets, clock } = setup({ ca: gate.ca });
  const waiting = secrets.fetch(id("a"), { signal });
  const refused = t.throwsAsync(waiting);
  secrets.forget(id("a"));
  t.is(errorCode(await refused), "PKI_FORGOTTEN");
  t.is(secrets.states.current.size, 0);
  await gate.release();
  await clock.advance(20 * hourMs);
  t.is(gate.asked.length, 1);
  t.is(secrets.states.current.size, 0);
  const again = secrets.fetch(id("a"), { signal });
  await gate.release();
  t.is((await again).identity, id("a"));
});

test("a caller that gives up leaves the fetch to the others", async (t) => {
  const gate = gatedCa();
  const { secrets } = setup({ ca: gate.ca });
  const controller = new AbortController();
  const impatient = t.throwsAsync(secrets.fetch(id("a"), { signal: controller.signal }));
  const patient = secrets.fetch(id("a"), { signal });
  const reason = new Error("connection closed");
  controller.abort(reason);
  t.is(await impatient, reason);
  await gate.release();
  t.is((await patient).identity, id("a"));
});

test("the number of identities is bounded", async (t) => {
  const { secrets } = setup({ maxIdentities: 2 });
  await secrets.fetch(id("a"), { signal });
  secrets.prefetch(id("b"));
  secrets.prefetch(id("c"));
  t.is(errorCode(await t.throwsAsync(secrets.fetch(id("c"), { signal }))), "PKI_TOO_MANY_IDENTITIES");
  t.is(secrets.states.current.size, 2);
});

test("closing ends everything that waits", async (t) => {
  const gate = gatedCa();
  const { secrets } = setup({ ca: gate.ca });
  const waiting = t.throwsAsync(secrets.fetch(id("a"), { signal }));
  const closing = secrets[Symbol.asyncDispose]();
  await gate.release();
  await closing;
  t.is(errorCode(await waiting), "PKI_CLOSED");
  t.is(errorCode(await t.throwsAsync(secrets.fetch(id("b"), { signal }))), "PKI_CLOSED");
});

test("no certificate state prints a private key", async (t) => {
  const { secrets } = setup();
  await secrets.fetch(id("a"), { signal });
  t.false(JSON.stringify([...secrets.states.current]).includes("PRIVATE"));
});

function setup(options: Partial<SecretManagerOptions> & { fails?: (identity: SpiffeId) => boolean } = {}) {
  const { fails = () => false, ...rest } = options;
  const clock = new ManualClock(Date.UTC(2026, 0, 1));
  const local = localCaClient(Authority.createSelfSigned({ trustDomain: "cluster.local", clock }));
  const asked: SpiffeId[] = [];
  const ca: CaClient = {
    async sign(request, { signal: stop }) {
      asked.push(request.identity);
      if (fails(request.identity)) throw new MeshError("PKI_CA_REFUSED", "not today");
      return local.sign(request, { signal: stop });
    },
    async [Symbol.asyncDispose]() {},
  };
  return { clock, asked, secrets: new SecretManager({ ca, clock, log: silentLogger, random: () => 0, ...rest }) };
}

/** A CA whose answers wait until they are released, oldest first. */
function gatedCa() {
  const local = localCaClient(Authority.createSelfSigned({ trustDomain: "cluster.local", clock: new ManualClock(Date.UTC(2026, 0, 1)) }));
  const asked: SpiffeId[] = [];
  const gates: (() => void)[] = [];
  const seen = { inFlight: 0, most: 0 };
  const ca: CaClient = {
    async sign(request, options) {
      asked.push(request.identity);
      seen.most = Math.max(seen.most, ++seen.inFlight);
      await new Promise<void>((resolve) => gates.push(resolve));
      seen.inFlight--;
      return local.sign(request, options);
    },
    async [Symbol.asyncDispose]() {},
  };
  return {
    ca,
    asked,
    get waiting() {
      return gates.length;
    },
    get mostInFlight() {
      return seen.most;
    },
    async release() {
      for (const open of gates.splice(0)) open();
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}
