import { closeSync, mkdtempSync, openSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type SeqpacketConnection, SeqpacketServer } from "@fairway/linux";
import { decodeZdsHello, decodeZdsResponse, encodeZdsRequest, type ZdsRequest } from "@fairway/protocol";
import { createRegistry, errorCode, ManualClock, Readiness, silentLogger, systemClock, TaskGroup } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { createProcessMetrics } from "./metrics.ts";
import { type Pod, Pods, pendingRetryMs } from "./pods.ts";
import { eventually } from "./test-mesh.ts";
import { runZdsClient } from "./zds-client.ts";

const forever = new AbortController().signal;
const name = { namespace: "default", name: "a", serviceAccount: "a" };

interface Served extends AsyncDisposable {
  readonly pod: Pod;
}

/** A node agent, a ztunnel's half of the protocol, and what it serves. */
class Rig {
  readonly readiness = new Readiness();
  readonly clock = new ManualClock();
  readonly started: string[] = [];
  readonly stopped: string[] = [];
  /** Why starting fails, while it does. */
  failure: Error | undefined;
  readonly pods: Pods<Served>;
  readonly ended: Promise<unknown>;
  /** The process begins to drain. */
  readonly leaving = new AbortController();
  readonly #connections: SeqpacketConnection[] = [];
  readonly #waiters: ((connection: SeqpacketConnection) => void)[] = [];

  private constructor(t: ExecutionContext, path: string) {
    const stop = new AbortController();
    const tasks = new TaskGroup(silentLogger);
    const metrics = createProcessMetrics(createRegistry(), "test");
    const start = async (pod: Pod): Promise<Served> => {
      if (this.failure !== undefined) throw this.failure;
      this.started.push(pod.uid);
      const dispose = async (): Promise<void> => {
        this.stopped.push(pod.uid);
        pod.namespace[Symbol.dispose]();
      };
      return { pod, [Symbol.asyncDispose]: dispose };
    };
    this.pods = new Pods({ start, readiness: this.readiness, metrics, clock: this.clock, log: silentLogger, tasks });
    const options = { socketPath: path, pods: this.pods, clock: systemClock, log: silentLogger, random: () => 0.5 };
    this.ended = runZdsClient(options, { signal: stop.signal, leaving: this.leaving.signal }).catch((thrown: unknown) => thrown);
    t.teardown(async () => {
      stop.abort();
      await this.ended;
      await this.pods[Symbol.asyncDispose]();
      await tasks[Symbol.asyncDispose]();
    });
  }

  static async open(t: ExecutionContext): Promise<Rig> {
    const directory = mkdtempSync(join(tmpdir(), "fwztunnel-"));
    t.teardown(() => rmSync(directory, { recursive: true, force: true }));
    const path = join(directory, "zds.sock");
    let deliver: (connection: SeqpacketConnection) => void = () => {};
    const server = await SeqpacketServer.listen(path, (connection) => deliver(connection));
    t.teardown(() => server.close());
    const rig = new Rig(t, path);
    deliver = (connection) => {
      const waiter = rig.#waiters.shift();
      if (waiter === undefined) rig.#connections.push(connection);
      else waiter(connection);
    };
    return rig;
  }

  /** The ztunnel's next connection, its hello taken. */
  async agent(t: ExecutionContext): Promise<SeqpacketConnection> {
    const connection = this.#connections.shift() ?? (await new Promise<SeqpacketConnection>((resolve) => this.#waiters.push(resolve)));
    const hello = await connection.receive({ signal: forever });
    t.is(decodeZdsHello(hello?.bytes ?? new Uint8Array()).version, "v1");
    return connection;
  }
}

async function ask(agent: SeqpacketConnection, request: ZdsRequest, fds: readonly number[] = []): Promise<string> {
  await agent.send(encodeZdsRequest(request), fds, { signal: forever });
  const answer = await agent.receive({ signal: forever });
  return answer === undefined ? "hung up" : decodeZdsResponse(answer.bytes).error;
}

/** Adds a pod with the namespace of this process, or with another file for one that is none. */
async function add(agent: SeqpacketConnection, uid: string, path = "/proc/self/ns/net"): Promise<string> {
  const fd = openSync(path, "r");
  try {
    return await ask(agent, { kind: "add", uid, workload: name }, [fd]);
  } finally {
    closeSync(fd);
  }
}

test.serial("ready only after the snapshot, and not while the agent is away", async (t) => {
  const rig = await Rig.open(t);
  t.deepEqual(rig.readiness.pending, ["workload proxy manager"]);
  const agent = await rig.agent(t);
  t.is(await add(agent, "one"), "");
  t.deepEqual(rig.readiness.pending, ["workload proxy manager"]);
  t.is(await ask(agent, { kind: "snapshot-sent" }), "");
  await eventually(t, () => rig.readiness.pending.length === 0);
  agent.close();
  await eventually(t, () => rig.readiness.pending.length === 1);
  t.deepEqual(rig.stopped, [], "pods are served on");
});

test.serial("a process that drains takes no pod, hears which pods are gone, and connects to no agent again", async (t) => {
  const rig = await Rig.open(t);
  const agent = await rig.agent(t);
  await add(agent, "one");
  await add(agent, "two");
  await ask(agent, { kind: "snapshot-sent" });
  rig.leaving.abort();
  await rig.pods.refuseMore();
  t.regex(await add(agent, "three"), /shutting down/);
  t.is(await ask(agent, { kind: "del", uid: "one" }), "");
  t.deepEqual(rig.stopped, ["one"]);
  agent.close();
  t.is(await rig.ended, undefined, "the conversation is over, not begun anew");
  t.deepEqual(rig.started, ["one", "two"]);
});

test.serial("while there is no agent it is looked for again after 20 ms, and every second at the latest", async (t) => {
  const waits: number[] = [];
  const leaving = new AbortController();
  const sleep = async (ms: number): Promise<void> => {
    if (waits.push(ms) === 8) leaving.abort();
  };
  const nobody = { connected: async () => {}, disconnected: async () => {} };
  const options = { socketPath: "/nonexistent/zds.sock", pods: nobody as never, clock: { ...systemClock, sleep }, log: silentLogger, random: () => 0.5 };
  await runZdsClient(options, { signal: forever, leaving: leaving.signal });
  t.deepEqual(waits, [20, 40, 80, 160, 320, 640, 1_000, 1_000]);
});

test.serial("adding a pod again changes nothing; its namespace is what decides", async (t) => {
  const rig = await Rig.open(t);
  const agent = await rig.agent(t);
  await add(agent, "one");
  t.is(await add(agent, "one"), "");
  t.deepEqual(rig.started, ["one"]);
});

test.serial("the same pod in another namespace is stopped and started", async (t) => {
  const rig = await Rig.open(t);
  const { pods } = rig;
  const held = (inode: bigint): Pod => ({ uid: "one", name, namespace: { fd: -1, inode, device: 1n, [Symbol.dispose]: () => {} } });
  await pods.add(held(1n));
  await pods.add(held(2n));
  t.deepEqual(rig.started, ["one", "one"]);
  t.deepEqual(rig.stopped, ["one"]);
});

test.serial("a pod that cannot start is refused, blocks readiness, and is tried again every five seconds", async (t) => {
  const rig = await Rig.open(t);
  const agent = await rig.agent(t);
  rig.failure = new Error("address in use");
  t.is(await add(agent, "one"), "address in use");
  t.is(await ask(agent, { kind: "snapshot-sent" }), "");
  t.deepEqual(rig.readiness.pending, ["workload proxy manager"]);
  await rig.clock.advance(pendingRetryMs);
  await eventually(t, () => rig.pods.list()[0]?.kind === "pending");
  rig.failure = undefined;
  await rig.clock.advance(pendingRetryMs);
  await eventually(t, () => rig.readiness.pending.length === 0);
  t.deepEqual(rig.started, ["one"]);
});

test.serial("a pending pod that is deleted is not tried again", async (t) => {
  const rig = await Rig.open(t);
  const agent = await rig.agent(t);
  rig.failure = new Error("address in use");
  await add(agent, "one");
  await ask(agent, { kind: "snapshot-sent" });
  t.is(await ask(agent, { kind: "del", uid: "one" }), "");
  rig.failure = undefined;
  await rig.clock.advance(2 * pendingRetryMs);
  t.deepEqual(rig.started, []);
  t.deepEqual(rig.readiness.pending, []);
});

test.serial("a new snapshot stops what it does not name, and keeps what it keeps", async (t) => {
  const rig = await Rig.open(t);
  const first = await rig.agent(t);
  for (const uid of ["added", "kept", "gone", "deleted"]) await add(first, uid);
  await ask(first, { kind: "snapshot-sent" });
  first.close();
  const second = await rig.agent(t);
  t.is(await add(second, "added"), "");
  t.is(await add(second, "deleted"), "");
  t.is(await ask(second, { kind: "keep", uid: "kept" }), "");
  t.is(await ask(second, { kind: "del", uid: "deleted" }), "");
  t.deepEqual(rig.stopped, [], "nothing stops before the snapshot is whole");
  t.is(await ask(second, { kind: "snapshot-sent" }), "");
  t.deepEqual([...rig.stopped].sort(), ["deleted", "gone"]);
  t.deepEqual(rig.started, ["added", "kept", "gone", "deleted"]);
});

test.serial("a delete after the snapshot stops at once, and an unknown pod is no error", async (t) => {
  const rig = await Rig.open(t);
  const agent = await rig.agent(t);
  await add(agent, "one");
  await ask(agent, { kind: "snapshot-sent" });
  t.is(await ask(agent, { kind: "del", uid: "one" }), "");
  t.deepEqual(rig.stopped, ["one"]);
  t.is(await ask(agent, { kind: "del", uid: "never" }), "");
  t.is(await add(agent, "one"), "");
  t.deepEqual(rig.started, ["one", "one"]);
});

for (const [what, request] of [
  ["keep", { kind: "keep", uid: "one" }],
  ["a second snapshot", { kind: "snapshot-sent" }],
  ["an add without workload info", { kind: "add", uid: "one", workload: undefined }],
] as const) {
  test.serial(`${what} after the snapshot is refused and ends the program`, async (t) => {
    const rig = await Rig.open(t);
    const agent = await rig.agent(t);
    await ask(agent, { kind: "snapshot-sent" });
    const fd = openSync("/proc/self/ns/net", "r");
    t.not(await ask(agent, request, request.kind === "add" ? [fd] : []), "");
    closeSync(fd);
    t.is(errorCode(await rig.ended), "ZTUNNEL_ZDS_PROTOCOL");
  });
}

for (const [what, bytes, descriptors] of [
  ["bytes that are no request", Buffer.from([255, 255, 255]), 0],
  ["an add without a descriptor", encodeZdsRequest({ kind: "add", uid: "one", workload: name }), 0],
  ["an add with two descriptors", encodeZdsRequest({ kind: "add", uid: "one", workload: name }), 2],
  ["a delete with a descriptor", encodeZdsRequest({ kind: "del", uid: "one" }), 1],
  ["an add with more descriptors than are read", encodeZdsRequest({ kind: "add", uid: "one", workload: name }), 20],
  ["more bytes than are read", Buffer.alloc(1_500), 0],
] as const) {
  test.serial(`${what}: refused, the connection ends, a new one begins`, async (t) => {
    const rig = await Rig.open(t);
    const agent = await rig.agent(t);
    const fds = Array.from({ length: descriptors }, () => openSync("/proc/self/ns/net", "r"));
    await agent.send(bytes, fds, { signal: forever });
    for (const fd of fds) closeSync(fd);
    const answer = await agent.receive({ signal: forever });
    t.not(decodeZdsResponse(answer?.bytes ?? new Uint8Array()).error, "");
    t.is(await agent.receive({ signal: forever }), undefined, "hung up");
    const next = await rig.agent(t);
    t.is(await ask(next, { kind: "snapshot-sent" }), "");
    t.deepEqual(rig.started, []);
  });
}

test.serial("a descriptor that is no namespace is refused", async (t) => {
  const rig = await Rig.open(t);
  const agent = await rig.agent(t);
  t.regex(await add(agent, "one", "/proc/self/status"), /not a network namespace/);
  t.deepEqual(rig.started, []);
});

test.serial("no descriptor is left behind by any of it", async (t) => {
  const rig = await Rig.open(t);
  const agent = await rig.agent(t);
  for (let round = 0; round < 20; round++) await add(agent, "one");
  await ask(agent, { kind: "snapshot-sent" });
  await ask(agent, { kind: "del", uid: "one" });
  const links = readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return [];
    }
  });
  t.true(links.filter((link) => link.startsWith("net:[")).length <= 1);
});
