import { openSync } from "node:fs";
import { join } from "node:path";
import { closeDescriptors, connectSeqpacket, currentNamespace, type NetworkNamespace, openNamespace, type SeqpacketConnection } from "@fairway/linux";
import { decodeZdsRequest, encodeZdsHello, encodeZdsResponse, type ZdsRequest } from "@fairway/protocol";
import { errorCode, ManualClock, silentLogger } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { testDirectory } from "./test-namespaces.ts";
import { answerDeadlineMs } from "./zds-connection.ts";
import { type SnapshotPod, ZdsServer } from "./zds-server.ts";

const signal = new AbortController().signal;
const workload = { name: "web-1", namespace: "shop", serviceAccount: "web" };

interface Bench {
  readonly zds: ZdsServer;
  readonly clock: ManualClock;
  readonly path: string;
  readonly own: NetworkNamespace;
}

async function bench(t: ExecutionContext, snapshot: () => Iterable<SnapshotPod> = () => []): Promise<Bench> {
  const clock = new ManualClock();
  const path = join(await testDirectory(t), "z.sock");
  const own = currentNamespace();
  const zds = await ZdsServer.listen({ path, clock, log: silentLogger, snapshot });
  t.teardown(async () => {
    await zds[Symbol.asyncDispose]();
    own[Symbol.dispose]();
  });
  return { zds, clock, path, own };
}

/** ztunnel's end of the wire: a real socket, answered by hand. */
class FakeZtunnel {
  readonly connection: SeqpacketConnection;

  private constructor(connection: SeqpacketConnection) {
    this.connection = connection;
  }

  static async connect(t: ExecutionContext, { path, clock }: Bench): Promise<FakeZtunnel> {
    const connection = await connectSeqpacket(path);
    t.teardown(() => connection.close());
    await connection.send(encodeZdsHello(), [], { signal });
    // The server waits between accepts.
    await clock.advance(200);
    return new FakeZtunnel(connection);
  }

  /** The next request, its descriptors closed after a look. */
  async next(): Promise<{ request: ZdsRequest; descriptors: number; namespaces: readonly { inode: bigint; device: bigint }[] }> {
    const message = await this.connection.receive({ signal });
    if (message === undefined) throw new Error("the server closed the connection");
    const namespaces = message.fds.map((fd) => {
      using namespace = openNamespace(fd);
      return { inode: namespace.inode, device: namespace.device };
    });
    return { request: decodeZdsRequest(message.bytes), descriptors: message.fds.length, namespaces };
  }

  answer(error = ""): Promise<void> {
    return this.connection.send(encodeZdsResponse({ error }), [], { signal });
  }

  async serve(): Promise<ZdsRequest> {
    const { request } = await this.next();
    await this.answer();
    return request;
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await turn();
}

test.serial("the snapshot adds what has a namespace, keeps what has none, and ends with its end", async (t) => {
  let own: NetworkNamespace | undefined;
  const b = await bench(t, () => [
    { uid: "uid-1", workload, namespace: own },
    { uid: "uid-2", workload, namespace: undefined },
  ]);
  own = b.own;
  const ztunnel = await FakeZtunnel.connect(t, b);
  const add = await ztunnel.next();
  t.deepEqual(add.request, { kind: "add", uid: "uid-1", workload });
  t.is(add.descriptors, 1);
  t.true(add.namespaces.every(({ inode, device }) => inode === b.own.inode && device === b.own.device));
  await ztunnel.answer();
  t.deepEqual(await ztunnel.serve(), { kind: "keep", uid: "uid-2" });
  t.deepEqual(await ztunnel.serve(), { kind: "snapshot-sent" });
});

test.serial("one request at a time: the next one comes only after the answer", async (t) => {
  const b = await bench(t);
  const ztunnel = await FakeZtunnel.connect(t, b);
  await ztunnel.serve();
  const adds = [b.zds.add("uid-1", workload, b.own), b.zds.add("uid-2", workload, b.own)];
  t.like((await ztunnel.next()).request, { uid: "uid-1" });
  let early = false;
  const second = ztunnel.next().then((message) => {
    early = true;
    return message;
  });
  for (let count = 0; count < 20; count += 1) await turn();
  t.false(early);
  await ztunnel.answer();
  t.like((await second).request, { uid: "uid-2" });
  await ztunnel.answer();
  await t.notThrowsAsync(Promise.all(adds));
});

test.serial("adds go to the ztunnel that came last, deletes to all", async (t) => {
  const b = await bench(t);
  const older = await FakeZtunnel.connect(t, b);
  await older.serve();
  const newer = await FakeZtunnel.connect(t, b);
  await newer.serve();
  const added = b.zds.add("uid-1", workload, b.own);
  t.like(await newer.serve(), { kind: "add", uid: "uid-1" });
  await added;
  const removed = b.zds.remove("uid-1");
  t.deepEqual(await Promise.all([older.serve(), newer.serve()]), [
    { kind: "del", uid: "uid-1" },
    { kind: "del", uid: "uid-1" },
  ]);
  await removed;
  newer.connection.close();
  await until(() => b.zds.connected === 1);
  const again = b.zds.add("uid-2", workload, b.own);
  t.like(await older.serve(), { kind: "add", uid: "uid-2" });
  await again;
});

test.serial("an add during the snapshot waits behind it", async (t) => {
  const b = await bench(t, () => [{ uid: "uid-0", workload, namespace: undefined }]);
  const ztunnel = await FakeZtunnel.connect(t, b);
  const first = await ztunnel.next();
  const added = b.zds.add("uid-1", workload, b.own);
  t.like(first.request, { kind: "keep" });
  await ztunnel.answer();
  t.like(await ztunnel.serve(), { kind: "snapshot-sent" });
  t.like(await ztunnel.serve(), { kind: "add", uid: "uid-1" });
  await added;
});

test.serial("a refusal carries ztunnel's words and leaves the connection", async (t) => {
  const b = await bench(t);
  const ztunnel = await FakeZtunnel.connect(t, b);
  await ztunnel.serve();
  const refused = t.throwsAsync(b.zds.add("uid-1", workload, b.own));
  await ztunnel.next();
  await ztunnel.answer("port 15001 is taken");
  const error = await refused;
  t.is(errorCode(error), "NODE_AGENT_ZDS_REFUSED");
  t.regex(error.message, /port 15001 is taken/);
  const again = b.zds.add("uid-1", workload, b.own);
  await ztunnel.serve();
  await again;
});

test.serial("a pod that is refused in the snapshot does not end the snapshot", async (t) => {
  let own: NetworkNamespace | undefined;
  const b = await bench(t, () => [{ uid: "uid-1", workload, namespace: own }]);
  own = b.own;
  const ztunnel = await FakeZtunnel.connect(t, b);
  await ztunnel.next();
  await ztunnel.answer("not now");
  t.deepEqual(await ztunnel.serve(), { kind: "snapshot-sent" });
  t.is(b.zds.connected, 1);
});

test.serial("without a ztunnel an add says so", async (t) => {
  const b = await bench(t);
  t.is(errorCode(await t.throwsAsync(b.zds.add("uid-1", workload, b.own))), "NODE_AGENT_ZTUNNEL_ABSENT");
  await t.notThrowsAsync(b.zds.remove("uid-1"));
});

test.serial("a ztunnel that does not answer within five seconds is dropped", async (t) => {
  const b = await bench(t);
  const ztunnel = await FakeZtunnel.connect(t, b);
  await ztunnel.serve();
  const added = t.throwsAsync(b.zds.add("uid-1", workload, b.own));
  await ztunnel.next();
  await b.clock.advance(answerDeadlineMs);
  t.is(errorCode(await added), "NODE_AGENT_ZDS_TIMEOUT");
  await until(() => b.zds.connected === 0);
  t.is(await ztunnel.connection.receive({ signal }), undefined);
});

test.serial("a ztunnel that never says hello is dropped, and is nobody's addressee meanwhile", async (t) => {
  const b = await bench(t);
  const silent = await connectSeqpacket(b.path);
  t.teardown(() => silent.close());
  for (let count = 0; count < 20; count += 1) await turn();
  t.is(b.zds.connected, 0);
  await b.clock.advance(answerDeadlineMs);
  t.is(await silent.receive({ signal }), undefined);
});

for (const [title, bytes] of [
  ["a hello of another version", Uint8Array.of(0x08, 0x07)],
  ["a hello that is no message", Uint8Array.of(0xff, 0xff, 0xff)],
] as const) {
  test.serial(`${title} ends the connection`, async (t) => {
    const b = await bench(t);
    const odd = await connectSeqpacket(b.path);
    t.teardown(() => odd.close());
    await odd.send(bytes, [], { signal });
    t.is(await odd.receive({ signal }), undefined);
    t.is(b.zds.connected, 0);
  });
}

test.serial("a ztunnel that speaks without being asked is dropped", async (t) => {
  const b = await bench(t);
  const ztunnel = await FakeZtunnel.connect(t, b);
  await ztunnel.serve();
  await turn();
  await ztunnel.answer();
  await until(() => b.zds.connected === 0);
  t.is(await ztunnel.connection.receive({ signal }), undefined);
});

test.serial("an answer that is no message, or one with a descriptor, ends the connection", async (t) => {
  const b = await bench(t);
  for (const withDescriptor of [false, true]) {
    const ztunnel = await FakeZtunnel.connect(t, b);
    await ztunnel.serve();
    const added = t.throwsAsync(b.zds.add("uid-1", workload, b.own));
    await ztunnel.next();
    const fds = withDescriptor ? [openSync("/proc/self/status", "r")] : [];
    await ztunnel.connection.send(withDescriptor ? encodeZdsResponse({ error: "" }) : Uint8Array.of(0xff), fds, { signal });
    closeDescriptors(fds);
    t.is(errorCode(await added), "NODE_AGENT_ZDS_PROTOCOL");
    await until(() => b.zds.connected === 0);
  }
});

test.serial("a ztunnel that leaves while it is asked fails the add at once", async (t) => {
  const b = await bench(t);
  const ztunnel = await FakeZtunnel.connect(t, b);
  await ztunnel.serve();
  const added = t.throwsAsync(b.zds.add("uid-1", workload, b.own));
  await ztunnel.next();
  ztunnel.connection.close();
  t.is(errorCode(await added), "NODE_AGENT_ZDS_CLOSED");
});

test.serial("ztunnels beyond the limit are refused", async (t) => {
  const b = await bench(t);
  const ztunnels: FakeZtunnel[] = [];
  for (let count = 0; count < 4; count += 1) {
    const ztunnel = await FakeZtunnel.connect(t, b);
    await ztunnel.serve();
    ztunnels.push(ztunnel);
  }
  const fifth = await connectSeqpacket(b.path);
  t.teardown(() => fifth.close());
  await b.clock.advance(200);
  t.is(await fifth.receive({ signal }), undefined);
  t.is(b.zds.connected, 4);
});
