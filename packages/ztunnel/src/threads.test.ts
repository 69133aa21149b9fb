/** Threads and namespaces: sockets are made in pods, but no thread stays there, whatever comes and goes. */
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type PodNetwork, type SeqpacketConnection, SeqpacketServer, selfTest } from "@fairway/linux";
import { encodeZdsRequest } from "@fairway/protocol";
import test from "ava";
import { eventually, readAll } from "./test-mesh.ts";
import { skippedWithoutNamespaces, twoPods } from "./test-pods.ts";
import { dismiss, enrol, inPod, nodeNamespace, twoPodMesh, ztunnel } from "./test-program.ts";

const forever = new AbortController().signal;
const churns = 40;
const clients = 4;

/** Samples in a row in which a thread that works is found outside: a visit takes microseconds, five of them in a row are no chance. */
const livingSamples = 5;
/** Work meanwhile; without it the thread is waiting for its processor in the middle of a visit. */
const workedNs = 3_000_000;

interface Sample {
  readonly name: string;
  readonly namespace: string;
  /** Time on a processor since the thread began. */
  readonly ranNs: number;
}

/** Every thread of a process with the network namespace it is in at this moment; one that ends meanwhile is in none. */
function threadsOf(pid: number): Map<string, Sample> {
  const threads = new Map<string, Sample>();
  for (const id of readdirSync(`/proc/${pid}/task`)) {
    try {
      const namespace = readlinkSync(`/proc/${pid}/task/${id}/ns/net`);
      const read = (file: string): string => readFileSync(`/proc/${pid}/task/${id}/${file}`, "utf8").trim();
      threads.set(id, { name: read("comm"), namespace, ranNs: Number(read("schedstat").split(" ")[0]) });
    } catch {
      // Ended.
    }
  }
  return threads;
}

/** One connection after the other from `network`, until told to stop; failures are what a pod that is not served answers. */
async function connectFor(network: PodNetwork, ip: string, counts: { served: number; refused: number }, running: () => boolean): Promise<void> {
  while (running()) {
    try {
      const { socket } = await network.dial({ host: ip, port: 8_000, mark: 0, timeoutMs: 2_000, signal: forever });
      socket.on("error", () => {});
      const answer = readAll(socket);
      socket.resume().end("x");
      if ((await answer).toString() === "x") counts.served++;
      else counts.refused++;
    } catch {
      counts.refused++;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

test.serial("pods come and go under load, and no thread of the program is ever found living in a pod", async (t) => {
  if (skippedWithoutNamespaces(t)) return;
  await selfTest();
  const { a, b } = twoPods(t);
  const directory = mkdtempSync(join(tmpdir(), "fwztunnel-"));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  writeFileSync(join(directory, "mesh.yaml"), twoPodMesh(a.ip, b.ip));
  const { promise, resolve } = Promise.withResolvers<SeqpacketConnection>();
  const server = await SeqpacketServer.listen(join(directory, "zds.sock"), resolve);
  t.teardown(() => server.close());
  const node = nodeNamespace(t);
  const { child, output } = ztunnel(t, node, {
    XDS_ADDRESS: "",
    LOCAL_XDS_PATH: join(directory, "mesh.yaml"),
    FAKE_CA: "true",
    INPOD_UDS: join(directory, "zds.sock"),
    ZTUNNEL_WORKER_THREADS: "2",
    RUST_LOG: "warn",
  });
  const agent = await Promise.race([promise, new Promise<undefined>((ended) => child.once("close", () => ended(undefined)))]);
  if (agent === undefined) return t.fail(output());
  await agent.receive({ signal: forever });
  t.is(await enrol(agent, "a", a), "");
  t.is(await enrol(agent, "b", b), "");
  await agent.send(encodeZdsRequest({ kind: "snapshot-sent" }), [], { signal: forever });
  await agent.receive({ signal: forever });
  const pid = child.pid ?? 0;
  // `ip netns exec` becomes the program.
  const home = readlinkSync(`/proc/${pid}/ns/net`);
  t.is([...threadsOf(pid).values()].filter(({ name }) => name.startsWith("traffic")).length, 2, "two threads that carry traffic");

  const listener = await inPod(t, b);
  await listener.listen({
    host: "0.0.0.0",
    port: 8_000,
    mark: 0,
    reusePort: false,
    transparent: false,
    backlog: 128,
    onConnection: (socket) => void socket.resume().pipe(socket),
  });
  const source = await inPod(t, a);
  let running = true;
  const counts = { served: 0, refused: 0 };
  const load = Array.from({ length: clients }, () => connectFor(source, b.ip, counts, () => running));

  let samples = 0;
  let visits = 0;
  const outsiders: string[] = [];
  const streaks = new Map<string, { samples: number; since: number }>();
  const sampler = setInterval(() => {
    samples++;
    for (const [id, { name, namespace, ranNs }] of threadsOf(pid)) {
      if (namespace === home) {
        streaks.delete(id);
        continue;
      }
      visits++;
      const streak = streaks.get(id) ?? { samples: 0, since: ranNs };
      streak.samples++;
      streaks.set(id, streak);
      // A thread that carries traffic makes its sockets in the pod; nobody else has any business there.
      const lives = streak.samples >= livingSamples && ranNs - streak.since > workedNs;
      if (lives || !name.startsWith("traffic")) outsiders.push(`${name} (${id})`);
    }
  }, 2);
  t.teardown(() => clearInterval(sampler));

  for (let round = 0; round < churns; round++) {
    const [name, pod] = round % 2 === 0 ? (["a", a] as const) : (["b", b] as const);
    t.is(await dismiss(agent, name), "");
    t.is(await enrol(agent, name, pod), "");
    const served = counts.served;
    await eventually(t, () => counts.served > served + 5);
  }
  running = false;
  await Promise.all(load);
  clearInterval(sampler);
  t.log(`${counts.served} connections served, ${counts.refused} met a pod that was away; ${samples} samples, ${visits} visits seen`);
  t.deepEqual(outsiders, []);
  t.true(samples > 100);
  t.true(counts.served > churns * 5);
  t.deepEqual(
    [...threadsOf(pid).values()].filter(({ namespace }) => namespace !== home),
    [],
    "at rest everybody is at home",
  );
  t.is(child.exitCode, null, output());
});
