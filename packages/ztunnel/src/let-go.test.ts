/** A thread that asks a view which holds a part of the mesh: what is let go of there is never taken for absent here. */
import { networkId, parseIp, type Snapshot } from "@fairway/model";
import { silentLogger, systemClock } from "@fairway/runtime";
import type { DecideOptions, MeshRelease } from "@fairway/xds";
import test, { type ExecutionContext } from "ava";
import { MeshDesk, type MeshSession } from "./mesh-desk.ts";
import { MemoryMesh, workload } from "./test-mesh.ts";
import { WorkingSet } from "./working-set.ts";

const b = workload("b", "10.0.0.2");
const find = (snapshot: Snapshot) => snapshot.workloadByAddress(networkId(""), parseIp("10.0.0.2"));
const wait = { signal: new AbortController().signal };

/** Fetches what is asked for by its address; says whom it waited for. */
class PartialMesh extends MemoryMesh {
  readonly asked: string[] = [];
  #listener: ((release: MeshRelease) => void) | undefined;

  override async decide<T>(decision: (snapshot: Snapshot) => T, { labels = false }: DecideOptions): Promise<T> {
    this.asked.push(labels ? "labels" : "decision");
    if (!labels) this.apply({ workloads: [b] });
    return decision(this.snapshot);
  }

  onRelease(listener: (release: MeshRelease) => void): Disposable {
    this.#listener = listener;
    return { [Symbol.dispose]: () => {} };
  }

  letGo(name: string): void {
    this.#listener?.({ names: new Set([name]), namesOf: () => new Set(["/10.0.0.2"]) });
    this.apply({ removedWorkloads: [b.uid] });
  }
}

function thread(t: ExecutionContext, mesh: PartialMesh): WorkingSet {
  const desk = new MeshDesk({ mesh, log: silentLogger });
  t.teardown(() => desk[Symbol.asyncDispose]());
  let session: MeshSession | undefined;
  const set = new WorkingSet({
    ask: (question) => session?.ask(question),
    forget: (keys) => session?.forget(keys),
    nodeName: undefined,
    clock: systemClock,
    onDemand: true,
  });
  session = desk.open((update) => set.apply(structuredClone(update)));
  return set;
}

test("what the view let go of is asked for again", async (t) => {
  const mesh = new PartialMesh();
  const set = thread(t, mesh);
  t.is((await set.decide(find, wait))?.uid, b.uid);
  await set.decide(find, wait);
  t.is(mesh.asked.length, 1, "held here");
  mesh.letGo("/10.0.0.2");
  t.is((await set.decide(find, wait))?.uid, b.uid);
  t.is(mesh.asked.length, 2);
});

test("what has nothing to do with it is kept, and what really left is known to have left", async (t) => {
  const mesh = new PartialMesh();
  const set = thread(t, mesh);
  await set.decide(find, wait);
  mesh.letGo("/10.0.0.99");
  t.is(await set.decide(find, wait), undefined);
  t.is(mesh.asked.length, 1);
});

test("an answer for labels, that nobody waited for, decides nothing", async (t) => {
  const mesh = new PartialMesh();
  const set = thread(t, mesh);
  t.is(await set.decide(find, { ...wait, labels: true }), undefined);
  t.is((await set.decide(find, wait))?.uid, b.uid);
  t.is((await set.decide(find, { ...wait, labels: true }))?.uid, b.uid, "and learns what became known");
  t.deepEqual(mesh.asked, ["labels", "decision"]);
});
