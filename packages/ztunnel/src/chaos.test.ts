import { once } from "node:events";
import type { Socket } from "node:net";
import test from "ava";
import { application, client, eventually, loopbackAddresses, policy, readAll, TestMesh, workload } from "./test-mesh.ts";

const at = loopbackAddresses();

/** Reproducible: the same seed makes the same trouble. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 4_294_967_296;
  };
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** One side of a connection behaving badly in one of several ways. */
async function misbehave(socket: Socket, random: () => number): Promise<void> {
  const ways: readonly (() => unknown)[] = [
    () => void socket.resetAndDestroy(),
    () => void socket.destroy(),
    () => void socket.end("x"),
    () => void socket.write(Buffer.alloc(200_000)),
    () => void socket.pause(),
    () => void socket.resume().end(),
    async () => {
      socket.write("a");
      await pause(random() * 20);
      socket.resetAndDestroy();
    },
  ];
  await ways[Math.floor(random() * ways.length)]?.();
}

for (const seed of [1, 7, 1_234]) {
  test.serial(`whatever clients and applications do, nothing is thrown and nothing is left (seed ${seed})`, async (t) => {
    const random = randomFrom(seed);
    const app = await application(t, at(2), (socket) => void misbehave(socket, random));
    const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload("b", at(2))] }, config: { halfClosedMs: 3_600_000 } });
    const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: random() < 0.9 ? app.port : 1 }));
    const b = await mesh.pod("b", at(2), () => ({ ip: at(2), port: app.port }));
    const thrown: unknown[] = [];
    const onThrown = (error: unknown): void => void thrown.push(error);
    process.on("uncaughtException", onThrown);
    process.on("unhandledRejection", onThrown);
    t.teardown(() => {
      process.off("uncaughtException", onThrown);
      process.off("unhandledRejection", onThrown);
    });
    const sockets: Socket[] = [];
    for (let round = 0; round < 120; round++) {
      const [host, port] = random() < 0.7 ? [at(1), a.port("outbound") ?? 0] : [at(2), b.port("plaintext") ?? 0];
      const socket = await client(t, host, port).catch(() => undefined);
      if (socket === undefined) continue;
      sockets.push(socket);
      void misbehave(socket, random);
      if (round === 60) mesh.mesh.apply({ policies: [policy("deny", { destinationPorts: [app.port] })] });
      if (round === 65) mesh.mesh.apply({ removedPolicies: ["default/deny" as never] });
    }
    await pause(100);
    for (const socket of sockets) socket.destroy();
    for (const socket of sockets) if (!socket.closed) await once(socket, "close");
    mesh.mesh.apply({ policies: [policy("deny", { destinationPorts: [app.port] })] });
    // Long before the deadline of silent half-closed connections: no end that somebody made may be missed.
    await eventually(t, () => a.size === 0 && b.size === 0);
    t.deepEqual(thrown, []);
    t.deepEqual(
      mesh.lines.filter((line) => /(connection|stream|tunnel) failed/.test(line) && !line.includes("\taccess\t")),
      [],
    );
    t.regex(await mesh.registry.metrics(), /istio_tcp_sockets_open\{reporter="source"\} 0\n/);
  });
}

test.serial("a reader that stops does not make this process hold what the sender has", async (t) => {
  const app = await application(t, at(2), (socket) => void socket.pause());
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload("b", at(2))] } });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: app.port }));
  await mesh.pod("b", at(2));
  const socket = await client(t, at(1), a.port("outbound") ?? 0);
  const chunk = Buffer.alloc(1_048_576);
  let accepted = 0;
  while (accepted < 200 && socket.writableLength < 4 * chunk.length) {
    socket.write(chunk);
    accepted++;
    await pause(2);
  }
  // The stream window of 4 MiB, and buffers of four sockets: far from 200 MB.
  t.true(accepted < 60, `${accepted} MiB were taken`);
});

test.serial("two processes may serve one pod during an upgrade; when the old one drains, the new one has every connection", async (t) => {
  const app = await application(t, at(2), (socket) => void socket.pipe(socket));
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload("b", at(2))] }, config: { reusePort: true } });
  const destination = () => ({ ip: at(2), port: app.port });
  const ports = { ...mesh.parts.config.ports, outbound: 15_001 };
  const old = await mesh.pod("a", at(1), destination, undefined, { ports });
  await mesh.pod("a", at(1), destination, undefined, { ports });
  await mesh.pod("b", at(2));
  const through = async (): Promise<string> => {
    const socket = await client(t, at(1), 15_001);
    return (await readAll(socket.end("x"))).toString();
  };
  for (let round = 0; round < 10; round++) t.is(await through(), "x");
  await old.drain({ signal: new AbortController().signal });
  for (let round = 0; round < 20; round++) t.is(await through(), "x");
});
