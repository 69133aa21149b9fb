import { once } from "node:events";
import { connect, createServer } from "node:net";
import { type NextHop, parseIp, parseSpiffeId, serviceKey } from "@fairway/model";
import { errorCode, ManualClock, withDeadline } from "@fairway/runtime";
import test from "ava";
import { goneMs, watchHalfClosed } from "./half-closed.ts";
import { type NameLookup, resolveNextHop, resolveTimeoutMs } from "./next-hop.ts";
import { proxyHeader } from "./proxy-header.ts";
import { MemoryMesh, service, workload } from "./test-mesh.ts";
import { withoutWorkloads } from "./without-workloads.ts";

const forever = new AbortController().signal;
const identity = parseSpiffeId("spiffe://cluster.local/ns/default/sa/a");

test("a PROXY header carries both addresses and the identity", (t) => {
  const header = proxyHeader({ source: { ip: parseIp("10.0.0.1"), port: 4_000 }, destination: { ip: parseIp("10.0.0.2"), port: 80 }, identity });
  t.is(header.subarray(0, 16).toString("hex"), `0d0a0d0a000d0a515549540a2111${(12 + 3 + identity.length).toString(16).padStart(4, "0")}`);
  t.is(header.subarray(16, 28).toString("hex"), "0a0000010a0000020fa00050");
  t.is(header.subarray(28, 31).toString("hex"), `d0${identity.length.toString(16).padStart(4, "0")}`);
  t.is(header.subarray(31).toString(), identity);
});

test("a PROXY header of two families is IPv6, the IPv4 end mapped", (t) => {
  const header = proxyHeader({ source: { ip: parseIp("10.0.0.1"), port: 1 }, destination: { ip: parseIp("fd00::2"), port: 2 }, identity });
  t.is(header[13], 0x21);
  t.is(header.subarray(16, 32).toString("hex"), "00000000000000000000ffff0a000001");
});

async function halfClosable(t: { teardown: (fn: () => void) => void }) {
  const server = createServer({ allowHalfOpen: true });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const near = connect({ port: typeof address === "object" && address !== null ? address.port : 0, host: "127.0.0.1", allowHalfOpen: true });
  const [far] = await once(server, "connection");
  t.teardown(() => {
    near.destroy();
    far.destroy();
    server.close();
  });
  return { near, far };
}

test("a half-closed connection ends after its silence, not while bytes move, and never before one side ended", async (t) => {
  const { near, far } = await halfClosable(t);
  const clock = new ManualClock();
  let moved = 0;
  let expired = 0;
  using _watch = watchHalfClosed(near, { clock, afterMs: 1_000, moved: () => moved, expire: () => void expired++ });
  await clock.advance(10_000);
  t.is(expired, 0, "both sides open");
  far.end();
  near.resume();
  await once(near, "end");
  moved = 1;
  await clock.advance(999);
  moved = 2;
  await clock.advance(1);
  t.is(expired, 0, "bytes moved");
  await clock.advance(1_000);
  t.is(expired, 1);
});

test("a connection whose socket was reset ends after its silence too", async (t) => {
  const { near, far } = await halfClosable(t);
  const clock = new ManualClock();
  let expired = 0;
  using _watch = watchHalfClosed(near, { clock, afterMs: 1_000, moved: () => 0, expire: () => void expired++ });
  if (near.connecting) await once(near, "connect");
  near.on("error", () => {}).resume();
  const closed = new Promise((resolve) => near.once("close", resolve));
  far.resetAndDestroy();
  await closed;
  await clock.advance(999);
  t.is(expired, 0);
  await clock.advance(1);
  t.is(expired, 1);
});

test("a connection whose socket is gone gets minutes of silence, however many a half-closed one may have", async (t) => {
  const { near, far } = await halfClosable(t);
  const clock = new ManualClock();
  let expired = 0;
  using _watch = watchHalfClosed(near, { clock, afterMs: 12 * goneMs, moved: () => 0, expire: () => void expired++ });
  if (near.connecting) await once(near, "connect");
  near.on("error", () => {}).resume();
  far.resume().end();
  await once(near, "end");
  await clock.advance(2 * goneMs);
  t.is(expired, 0, "half-closed");
  const closed = new Promise((resolve) => near.once("close", resolve));
  near.end();
  await closed;
  await clock.advance(goneMs - 1);
  t.is(expired, 0);
  await clock.advance(1);
  t.is(expired, 1);
});

test("a deadline ends a wait that ignores its signal", async (t) => {
  const clock = new ManualClock();
  const reason = new Error("too late");
  const waiting = t.throwsAsync(withDeadline({ clock, signal: forever, afterMs: 10, reason }, () => new Promise(() => {})));
  await clock.advance(10);
  t.is(await waiting, reason);
  const caller = new AbortController();
  const other = t.throwsAsync(withDeadline({ clock, signal: caller.signal, afterMs: 10, reason }, () => new Promise(() => {})));
  caller.abort(new Error("the caller left"));
  t.is((await other)?.message, "the caller left");
});

const named: NextHop = { kind: "hostname", hostname: "db.example.com", port: 5432 };
for (const [near, records, expected] of [
  ["10.0.0.1", ["2001:db8::1", "192.0.2.1"], "192.0.2.1"],
  ["fd00::1", ["192.0.2.1", "2001:db8::1"], "2001:db8::1"],
  ["10.0.0.1", ["2001:db8::1"], "2001:db8::1"],
] as const) {
  test(`a name with ${records.join(" and ")} is dialled at ${expected} by a client at ${near}`, async (t) => {
    const options = { lookup: async () => records, near: parseIp(near), random: () => 0, clock: new ManualClock(), signal: forever };
    t.deepEqual(await resolveNextHop(named, options), { ip: parseIp(expected), port: 5432 });
  });
}

for (const [what, lookup] of [
  ["without addresses", async () => []],
  ["that fails", () => Promise.reject(new Error("NXDOMAIN"))],
] as readonly (readonly [string, NameLookup])[]) {
  test(`a name ${what} is an error that names it`, async (t) => {
    const error = await t.throwsAsync(resolveNextHop(named, { lookup, near: parseIp("10.0.0.1"), random: () => 0, clock: new ManualClock(), signal: forever }));
    t.is(errorCode(error), "ZTUNNEL_NAME_UNRESOLVED");
    t.true(error?.message.includes("db.example.com"));
  });
}

test("a resolver that never answers is waited for five seconds", async (t) => {
  const clock = new ManualClock();
  const waiting = t.throwsAsync(
    resolveNextHop(named, { lookup: () => new Promise(() => {}), near: parseIp("10.0.0.1"), random: () => 0, clock, signal: forever }),
  );
  await clock.advance(resolveTimeoutMs);
  t.is(errorCode(await waiting), "ZTUNNEL_NAME_UNRESOLVED");
});

test("excluded workloads are no endpoints, and everything else is as before", (t) => {
  const { service: web, workloads } = service("web", "10.0.0.100", 80, 8080, [workload("one", "10.0.0.1"), workload("two", "10.0.0.2")]);
  const { snapshot } = new MemoryMesh({ workloads, services: [web] });
  const [one] = workloads;
  const without = withoutWorkloads(snapshot, new Set(one === undefined ? [] : [one.uid]));
  t.deepEqual(
    [...without.endpoints(serviceKey("default", web.hostname))].map(({ name }) => name),
    ["two"],
  );
  t.is([...without.workloads()].length, 2);
  t.is(withoutWorkloads(snapshot, new Set()), snapshot);
});
