import { once } from "node:events";
import test from "ava";
import { application, client, eventually, loopbackAddresses, policy, readAll, TestMesh, workload } from "./test-mesh.ts";

const at = loopbackAddresses();

test.serial("plaintext that policy allows reaches the application", async (t) => {
  const app = await application(t, at(2), (socket) => void socket.pipe(socket));
  const mesh = new TestMesh(t, { change: { workloads: [workload("b", at(2))] } });
  const b = await mesh.pod("b", at(2), () => ({ ip: at(2), port: app.port }));
  const socket = await client(t, at(2), b.port("plaintext") ?? 0);
  socket.end("plain");
  t.is((await readAll(socket)).toString(), "plain");
  t.regex(
    await mesh.registry.metrics(),
    /istio_tcp_received_bytes_total\{reporter="destination",.*destination_workload="b",.*connection_security_policy="unknown"\} 5\n/,
  );
});

test.serial("where an identity is demanded plaintext is reset, live connections too", async (t) => {
  const app = await application(t, at(2), (socket) => void socket.pipe(socket));
  const mesh = new TestMesh(t, { change: { workloads: [workload("b", at(2))] } });
  const b = await mesh.pod("b", at(2), () => ({ ip: at(2), port: app.port }));
  const live = await client(t, at(2), b.port("plaintext") ?? 0);
  live.write("x");
  await once(live, "data");
  const ended = once(live, "close");
  live.on("end", () => live.end());
  mesh.mesh.apply({ policies: [policy("deny", { notPrincipals: [{ kind: "presence" }] })] });
  await ended;
  await t.throwsAsync(async () => readAll(await client(t, at(2), b.port("plaintext") ?? 0)), { code: "ECONNRESET" });
  await eventually(t, () => mesh.accessLines().some((line) => line.includes("source identity none (plaintext)")));
});

test.serial("a mesh port is never forwarded to", async (t) => {
  const mesh = new TestMesh(t, { change: { workloads: [workload("b", at(2))] } });
  const b = await mesh.pod("b", at(2), () => ({ ip: at(2), port: 15_008 }));
  await t.throwsAsync(async () => readAll(await client(t, at(2), b.port("plaintext") ?? 0)), { code: "ECONNRESET" });
  await eventually(t, () => mesh.accessLines().some((line) => line.includes("attempted recursive call to ourselves")));
});

test.serial("past the bound of pending connections new ones are refused at once, and counted", async (t) => {
  const mesh = new TestMesh(t, { change: { workloads: [] }, config: { maxPendingConnections: 2 } });
  const b = await mesh.pod("b", at(2), () => ({ ip: at(2), port: 80 }));
  const waiting = await Promise.all([1, 2].map(() => client(t, at(2), b.port("plaintext") ?? 0)));
  await t.throwsAsync(async () => readAll(await client(t, at(2), b.port("plaintext") ?? 0)), { code: "ECONNRESET" });
  t.is(waiting.filter(({ destroyed }) => destroyed).length, 0);
  t.regex(await mesh.registry.metrics(), /fairway_ztunnel_overload_total\{bound="pending-plaintext"\} 1\n/);
});
