/** A thread that holds a part of the mesh decides as one that holds all of it, whatever changes and whatever it gave up. */
import {
  authorize,
  emptySnapshot,
  networkId,
  type PolicyKey,
  parseIp,
  parseSpiffeId,
  policyKey,
  resolveInbound,
  resolveOutbound,
  type Snapshot,
  type SnapshotChange,
  serviceKey,
  type Workload,
} from "@fairway/model";
import { errorCode, ManualClock, silentLogger, systemClock, TaskGroup } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { Connections } from "./connections.ts";
import { MeshDesk, type MeshSession } from "./mesh-desk.ts";
import type { MeshUpdate } from "./mesh-update.ts";
import { eventually, MemoryMesh, policy, service, workload } from "./test-mesh.ts";
import { WorkingSet } from "./working-set.ts";

const wait = { signal: new AbortController().signal };
const network = networkId("");

interface Rig {
  readonly mesh: MemoryMesh;
  readonly set: WorkingSet;
  readonly updates: MeshUpdate[];
  readonly forgotten: string[];
}

/** A thread at the other side of structured clone; messages arrive in later turns, in order. */
function rig(t: ExecutionContext, mesh: MemoryMesh, options: { maxHeld?: number; clock?: ManualClock } = {}): Rig {
  const desk = new MeshDesk({ mesh, log: silentLogger });
  t.teardown(() => desk[Symbol.asyncDispose]());
  const updates: MeshUpdate[] = [];
  const forgotten: string[] = [];
  let session: MeshSession | undefined;
  const set = new WorkingSet({
    ask: (question) => void setImmediate(() => session?.ask(structuredClone(question))),
    forget: (keys) => {
      forgotten.push(...keys);
      setImmediate(() => session?.forget(keys));
    },
    nodeName: undefined,
    clock: options.clock ?? systemClock,
    ...(options.maxHeld === undefined ? {} : { maxHeld: options.maxHeld }),
  });
  session = desk.open((update) => {
    updates.push(update);
    setImmediate(() => set.apply(structuredClone(update)));
  });
  return { mesh, set, updates, forgotten };
}

/** Everything that is under way has arrived. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 6; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** Numbers that look random and are the same in every run. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 0x1_0000_0000) * below);
  };
}

/** A mesh of eight workloads, four services and six policies that changes by the numbers. */
function changing(draw: (below: number) => number) {
  const uids = ["a", "b", "c", "d", "e", "f", "g", "h"];
  const key = (n: number): PolicyKey => policyKey("default", `p${n}`);
  const someWorkload = (name: string): Workload => {
    const { workloads } = service(`s${draw(4)}`, `10.1.0.${1 + draw(4)}`, 80, 8080, [workload(name, `10.0.0.${1 + draw(8)}`)]);
    const [base] = workloads;
    if (base === undefined) throw new Error("no workload");
    const waypoint = { destination: { kind: "hostname" as const, namespace: "default", hostname: `s${draw(4)}.default.svc.cluster.local` }, hbonePort: 15_008 };
    return {
      ...base,
      status: draw(4) === 0 ? "unhealthy" : "healthy",
      authorizationPolicies: draw(3) === 0 ? [key(draw(6)), key(draw(6))] : [],
      waypoint: draw(5) === 0 ? waypoint : undefined,
      tunnelProtocol: draw(4) === 0 ? "none" : "hbone",
    };
  };
  const next = (): SnapshotChange => {
    const n = draw(6);
    switch (draw(6)) {
      case 0:
        return { removedWorkloads: [workload(uids[draw(8)] ?? "a", "10.0.0.1").uid] };
      case 1:
        return {
          services: [{ ...service(`s${n % 4}`, `10.1.0.${1 + draw(4)}`, 80, 8080, []).service, visibility: draw(2) === 0 ? "public" : "namespace" }],
        };
      case 2:
        return { removedServices: [serviceKey("default", `s${n % 4}.default.svc.cluster.local`)] };
      case 3:
        return {
          policies: [
            {
              ...policy(draw(2) === 0 ? "allow" : "deny", { destinationPorts: [80 + draw(3)] }),
              name: `p${n}`,
              scope: draw(2) === 0 ? "namespace" : "workload-selector",
            },
          ],
        };
      case 4:
        return { removedPolicies: [key(n)] };
      default:
        return { workloads: [someWorkload(uids[draw(8)] ?? "a"), someWorkload(uids[draw(8)] ?? "b")] };
    }
  };
  const change = (mesh: MemoryMesh): void => mesh.apply(next());
  return { change, uids };
}

function question(draw: (below: number) => number, uids: readonly string[]): (snapshot: Snapshot) => unknown {
  const name = uids[draw(uids.length)] ?? "a";
  const destination = { ip: parseIp(draw(2) === 0 ? `10.1.0.${1 + draw(4)}` : `10.0.0.${1 + draw(8)}`), port: 80 };
  const random = draw(1_000) / 1_000;
  const context = (snapshot: Snapshot) => ({ snapshot, network, random: () => random, ownPorts: new Set([15_001]) });
  const own = (snapshot: Snapshot) => snapshot.workloadByName({ namespace: "default", name, serviceAccount: name }, undefined);
  const facts = { source: { ip: parseIp("10.0.0.9"), port: 1 }, destination, identity: parseSpiffeId("spiffe://cluster.local/ns/default/sa/x") };
  switch (draw(3)) {
    case 0:
      return (snapshot) => {
        const source = own(snapshot);
        return source && resolveOutbound(context(snapshot), source, destination);
      };
    case 1:
      return (snapshot) => {
        const local = own(snapshot);
        return local && resolveInbound(context(snapshot), local, { local: destination, authority: `10.0.0.${1 + draw(8)}:80`, forwardedHost: undefined });
      };
    default:
      return (snapshot) => {
        const local = own(snapshot);
        return local && authorize(snapshot, local, facts);
      };
  }
}

for (const maxHeld of [4, 24, 10_000]) {
  test(`decisions of a thread that holds at most ${maxHeld} answers are those of the whole mesh, through 1,500 changes`, async (t) => {
    const draw = numbers(maxHeld);
    const { change, uids } = changing(draw);
    const { mesh, set, forgotten } = rig(t, new MemoryMesh(), { maxHeld });
    for (let step = 0; step < 1_500; step++) {
      change(mesh);
      if (step % 3 > 0) continue;
      // Inbound questions draw while they decide: each side gets numbers of its own.
      const seed = draw(1_000_000);
      const ask = () => question(numbers(seed), uids);
      await settled();
      const decided = await set.decide((snapshot) => ask()(snapshot), wait);
      t.deepEqual(decided, ask()(mesh.snapshot), `step ${step}`);
    }
    t.is(forgotten.length > 0, maxHeld < 10_000);
  });
}

test("a resource is sent once for all the answers it is in, and dropped with the last of them", async (t) => {
  const a = workload("a", "10.0.0.1");
  const { set, mesh, updates, forgotten } = rig(t, new MemoryMesh({ workloads: [a] }), { maxHeld: 2 });
  await set.decide((snapshot) => snapshot.workload(a.uid), wait);
  await set.decide((snapshot) => snapshot.workloadByAddress(network, parseIp("10.0.0.1")), wait);
  t.is(updates.flatMap(({ workloads }) => workloads).length, 1);
  mesh.apply({ workloads: [{ ...a, capacity: 7 }] });
  await settled();
  t.is(updates.flatMap(({ workloads }) => workloads).length, 2, "the changed one, once");
  t.is((await set.decide((snapshot) => snapshot.workload(a.uid), wait))?.capacity, 7);
  for (let host = 2; host < 12; host++) await set.decide((snapshot) => snapshot.workloadByAddress(network, parseIp(`10.0.0.${host}`)), wait);
  await settled();
  t.true(forgotten.length > 0);
  t.true(set.size <= 4, `${set.size} answers are held`);
  t.deepEqual(
    updates.flatMap(({ droppedWorkloads }) => droppedWorkloads),
    [a.uid],
  );
});

test("changes elsewhere in the mesh are told without one resource", async (t) => {
  const { set, mesh, updates } = rig(t, new MemoryMesh({ workloads: [workload("a", "10.0.0.1")] }));
  await set.decide((snapshot) => snapshot.workloadByAddress(network, parseIp("10.0.0.1")), wait);
  const before = updates.length;
  mesh.apply({ workloads: Array.from({ length: 100 }, (_, index) => workload(`x${index}`, `10.9.0.${index}`)) });
  await settled();
  const [told, ...more] = updates.slice(before);
  t.is(more.length, 0);
  t.deepEqual([told?.workloads, told?.answers, told?.workloadsChanged], [[], [], true]);
});

test("live connections are authorized again when a policy comes that the thread gave up, and end", async (t) => {
  const b = workload("b", "10.0.0.2");
  const { mesh, set } = rig(t, new MemoryMesh({ workloads: [b] }), { maxHeld: 2 });
  const tasks = new TaskGroup(silentLogger);
  t.teardown(() => tasks[Symbol.asyncDispose]());
  using connections = new Connections({ mesh: set, tasks });
  const facts = { source: { ip: parseIp("10.0.0.1"), port: 1 }, destination: { ip: parseIp("10.0.0.2"), port: 80 }, identity: undefined };
  const admission = await connections.admit(b, facts, () => ({ src: "", originalDst: undefined, actualDst: "", protocol: "TCP" }));
  if (!admission.allowed) return t.fail();
  for (let host = 3; host < 20; host++) await set.decide((snapshot) => snapshot.workloadByAddress(network, parseIp(`10.0.0.${host}`)), wait);
  await settled();
  mesh.apply({ policies: [policy("deny", { destinationPorts: [80] })] });
  await eventually(t, () => admission.connection.signal.aborted);
  t.is(errorCode(admission.connection.signal.reason), "ZTUNNEL_POLICY_CHANGED");
});

test("live connections end when nobody says whether they may go on", async (t) => {
  const clock = new ManualClock();
  const b = workload("b", "10.0.0.2");
  let silent = false;
  const mesh = new MemoryMesh({ workloads: [b] });
  const desk = new MeshDesk({ mesh, log: silentLogger });
  t.teardown(() => desk[Symbol.asyncDispose]());
  let session: MeshSession | undefined;
  const set = new WorkingSet({ ask: (asked) => (silent ? undefined : session?.ask(asked)), forget: () => {}, nodeName: undefined, clock });
  session = desk.open((update) => set.apply(structuredClone(update)));
  const tasks = new TaskGroup(silentLogger);
  t.teardown(() => tasks[Symbol.asyncDispose]());
  using connections = new Connections({ mesh: set, tasks });
  const facts = { source: { ip: parseIp("10.0.0.1"), port: 1 }, destination: { ip: parseIp("10.0.0.2"), port: 80 }, identity: undefined };
  const admission = await connections.admit(b, facts, () => ({ src: "", originalDst: undefined, actualDst: "", protocol: "TCP" }));
  if (!admission.allowed) return t.fail();
  silent = true;
  // Another list of policies is another question.
  mesh.apply({ workloads: [{ ...b, authorizationPolicies: [policyKey("default", "new")] }] });
  await settled();
  t.false(admission.connection.signal.aborted);
  await clock.advance(5_000);
  await settled();
  t.true(admission.connection.signal.aborted);
});

test("what is not held is asked for once, however many wait, and a question that fails refuses them all", async (t) => {
  const asked: unknown[] = [];
  const set = new WorkingSet({ ask: (about) => asked.push(about), forget: () => {}, nodeName: undefined, clock: new ManualClock() });
  const look = (snapshot: Snapshot) => snapshot.workloadByAddress(network, parseIp("10.0.0.1"));
  const waiting = [1, 2, 3].map(() => set.decide(look, wait).catch(errorCode));
  const impatient = new AbortController();
  const left = set.decide(look, { signal: impatient.signal }).catch((thrown: unknown) => thrown);
  impatient.abort("left");
  t.is(await left, "left");
  t.is(asked.length, 1);
  const none: MeshUpdate = {
    synced: true,
    policiesChanged: false,
    workloadsChanged: false,
    workloads: [],
    services: [],
    policies: [],
    answers: [],
    failures: [{ key: JSON.stringify(["workload-by-address", "", "10.0.0.1"]), message: "the control plane is away" }],
    droppedWorkloads: [],
    droppedServices: [],
    droppedPolicies: [],
    forgotten: [],
  };
  set.apply(none);
  t.deepEqual(await Promise.all(waiting), ["ZTUNNEL_MESH_UNANSWERED", "ZTUNNEL_MESH_UNANSWERED", "ZTUNNEL_MESH_UNANSWERED"]);
});

test("a silent main thread refuses who waits, after a while", async (t) => {
  const clock = new ManualClock();
  const set = new WorkingSet({ ask: () => {}, forget: () => {}, nodeName: undefined, clock });
  const refused = set.decide((snapshot) => snapshot.workloadByAddress(network, parseIp("10.0.0.1")), wait).catch(errorCode);
  await clock.advance(5_000);
  t.is(await refused, "ZTUNNEL_MESH_UNANSWERED");
});

test("a lookup outside a decision is an error, never a guess", (t) => {
  const set = new WorkingSet({ ask: () => {}, forget: () => {}, nodeName: undefined, clock: new ManualClock() });
  t.is(errorCode(t.throws(() => set.snapshot.workloadByAddress(network, parseIp("10.0.0.1")))), "ZTUNNEL_NOT_HELD");
  t.is(errorCode(t.throws(() => [...set.snapshot.workloads()])), "ZTUNNEL_NOT_HELD");
  t.is([...emptySnapshot.workloads()].length, 0);
});

test("a pod that the mesh learns of late is waited for", async (t) => {
  const { mesh, set } = rig(t, new MemoryMesh());
  const found = set.waitForWorkload({ namespace: "default", name: "a", serviceAccount: "a" }, { ...wait, timeoutMs: 5_000 });
  await settled();
  mesh.apply({ workloads: [workload("other", "10.0.0.3")] });
  await settled();
  mesh.apply({ workloads: [workload("a", "10.0.0.1")] });
  t.is((await found).name, "a");
  await t.throwsAsync(set.waitForWorkload({ namespace: "default", name: "z", serviceAccount: "z" }, { ...wait, timeoutMs: 20 }), {
    code: "XDS_WORKLOAD_UNKNOWN",
  });
});
