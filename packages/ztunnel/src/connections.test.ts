import { type AuthorizationPolicy, type ConnectionFacts, parseIp, parseSpiffeId, policyKey } from "@fairway/model";
import { silentLogger, TaskGroup } from "@fairway/runtime";
import test from "ava";
import { Connections } from "./connections.ts";
import { MemoryMesh, policy, workload } from "./test-mesh.ts";

const b = workload("b", "10.0.0.2");
const summary = () => ({ src: "10.0.0.1:1", originalDst: undefined, actualDst: "10.0.0.2:80", protocol: "HBONE" as const });
const facts = (port = 80): ConnectionFacts => ({
  source: { ip: parseIp("10.0.0.1"), port: 1 },
  destination: { ip: parseIp("10.0.0.2"), port },
  identity: parseSpiffeId("spiffe://cluster.local/ns/default/sa/a"),
});

const tasks = new TaskGroup(silentLogger);
/** What a change causes has run. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("a denied connection is not registered", async (t) => {
  const mesh = new MemoryMesh({ workloads: [b], policies: [policy("deny", { destinationPorts: [80] })] });
  using connections = new Connections({ mesh, tasks });
  t.false((await connections.admit(b, facts(), summary)).allowed);
  t.is(connections.size, 0);
});

test("connections with equal facts are evaluated once and all end", async (t) => {
  const mesh = new MemoryMesh({ workloads: [b] });
  let evaluations = 0;
  using connections = new Connections({ mesh, tasks, onVerdict: () => void evaluations++ });
  const admitted = await Promise.all([1, 2, 3].map(() => connections.admit(b, facts(), summary)));
  evaluations = 0;
  mesh.apply({ policies: [policy("deny", { destinationPorts: [80] })] });
  await settled();
  t.is(evaluations, 1);
  for (const admission of admitted) t.true(admission.allowed && admission.connection.signal.aborted);
  const [first] = admitted;
  t.regex(String(first?.allowed && first.connection.signal.reason), /connection closed due to policy change/);
});

test("a connection that ended leaves the others of its key alone", async (t) => {
  const mesh = new MemoryMesh({ workloads: [b] });
  using connections = new Connections({ mesh, tasks });
  const [one, two] = [await connections.admit(b, facts(), summary), await connections.admit(b, facts(), summary)];
  if (!one.allowed || !two.allowed) return t.fail();
  one.connection[Symbol.dispose]();
  mesh.apply({ policies: [policy("deny", { destinationPorts: [80] })] });
  await settled();
  t.false(one.connection.signal.aborted);
  t.true(two.connection.signal.aborted);
});

test("changes elsewhere in the mesh evaluate nothing", async (t) => {
  const mesh = new MemoryMesh({ workloads: [b] });
  let evaluations = 0;
  using connections = new Connections({ mesh, tasks, onVerdict: () => void evaluations++ });
  await connections.admit(b, facts(), summary);
  evaluations = 0;
  mesh.apply({ workloads: [workload("c", "10.0.0.3")] });
  await settled();
  t.is(evaluations, 0);
});

test("a workload that left the mesh keeps its connections, under the policies of the moment", async (t) => {
  const mesh = new MemoryMesh({ workloads: [b] });
  using connections = new Connections({ mesh, tasks });
  const admission = await connections.admit(b, facts(), summary);
  if (!admission.allowed) return t.fail();
  mesh.apply({ removedWorkloads: [b.uid] });
  await settled();
  t.false(admission.connection.signal.aborted);
  mesh.apply({ policies: [policy("deny", { destinationPorts: [80] })] });
  await settled();
  t.true(admission.connection.signal.aborted);
});

test("a policy named by the workload but not known denies", async (t) => {
  const selected = { ...b, authorizationPolicies: ["default/absent" as never] };
  using connections = new Connections({ tasks, mesh: new MemoryMesh({ workloads: [selected] }) });
  const admission = await connections.admit(selected, facts(), summary);
  t.is(!admission.allowed && admission.verdict.reason, "policy-unknown");
});

test("idle resolves with the last connection", async (t) => {
  using connections = new Connections({ tasks, mesh: new MemoryMesh({ workloads: [b] }) });
  const one = connections.track("outbound", summary);
  const admission = await connections.admit(b, facts(81), summary);
  if (!admission.allowed) return t.fail();
  let idle = false;
  const waiting = connections.idle({ signal: new AbortController().signal }).then(() => {
    idle = true;
  });
  one[Symbol.dispose]();
  await Promise.resolve();
  t.false(idle);
  admission.connection[Symbol.dispose]();
  await waiting;
  t.deepEqual([connections.list("inbound"), connections.list("outbound")], [[], []]);
});

test("what was accepted and is no connection yet keeps the pod from being idle", async (t) => {
  using connections = new Connections({ tasks, mesh: new MemoryMesh({ workloads: [b] }) });
  const begun = connections.begin();
  let idle = false;
  const waiting = connections.idle({ signal: new AbortController().signal }).then(() => {
    idle = true;
  });
  await settled();
  t.false(idle);
  t.is(connections.size, 0, "it is no connection");
  begun[Symbol.dispose]();
  await waiting;
});

test("what begins after the end is born ended", (t) => {
  using connections = new Connections({ tasks, mesh: new MemoryMesh({ workloads: [b] }) });
  const before = connections.track("outbound", summary);
  connections.shutDown(new Error("over"));
  t.true(before.signal.aborted);
  t.true(connections.track("outbound", summary).signal.aborted);
});

/** Policies for `namespace` whose rules tell when they are read: once, to be compiled, by whoever evaluates them. */
function counted(count: number, namespace: string, onRead: () => void): AuthorizationPolicy[] {
  return Array.from({ length: count }, (_, index) => {
    const made = { ...policy("deny", { destinationPorts: [1] }), name: `p${index}`, namespace };
    const { rules } = made;
    const get = (): typeof rules => {
      onRead();
      return rules;
    };
    return Object.defineProperty(made, "rules", { enumerable: true, get });
  });
}

test("of ten thousand policies those of the workload are read, once for all connections, and a change elsewhere evaluates nobody again", async (t) => {
  const reads = { own: 0, others: 0 };
  const own = counted(10, "default", () => void reads.own++);
  const others = Array.from({ length: 999 }, (_, index) => counted(10, `n${index}`, () => void reads.others++)).flat();
  const mesh = new MemoryMesh({ workloads: [b], policies: [...own, ...others] });
  let evaluations = 0;
  using connections = new Connections({ mesh, tasks, onVerdict: () => void evaluations++ });
  for (let port = 100; port < 300; port++) t.true((await connections.admit(b, facts(port), summary)).allowed);
  t.deepEqual(reads, { own: 10, others: 0 });
  evaluations = 0;

  mesh.apply({ policies: counted(1, "n7", () => void reads.others++) });
  await settled();
  t.is(evaluations, 0, "a policy of another namespace");
  mesh.apply({ policies: counted(1, "default", () => void reads.own++) });
  await settled();
  t.is(evaluations, 200);
  t.deepEqual(reads, { own: 11, others: 0 }, "the nine that did not change are ready");
});

test("a change to and fro finds those who were admitted in between", async (t) => {
  const refuses = policy("deny", { destinationPorts: [80] });
  const key = { removedPolicies: [policyKey(refuses.namespace, refuses.name)] };
  const mesh = new MemoryMesh({ workloads: [b], policies: [refuses] });
  using connections = new Connections({ mesh, tasks });
  t.true((await connections.admit(b, facts(81), summary)).allowed);
  mesh.apply(key);
  const between = await connections.admit(b, facts(80), summary);
  const again = await connections.admit(b, facts(80), summary);
  mesh.apply({ policies: [refuses] });
  await settled();
  for (const admission of [between, again]) t.true(admission.allowed && admission.connection.signal.aborted);
});
