import { once } from "node:events";
import { createServer } from "node:net";
import { errorCode, ManualClock } from "@fairway/runtime";
import test from "ava";
import { application, client, eventually, loopbackAddresses, readAll, TestMesh, workload } from "./test-mesh.ts";

const at = loopbackAddresses();

test.serial("a port that is taken fails the pod, and leaves none of its other ports open", async (t) => {
  const squatter = createServer().listen(15_008, at(3));
  await once(squatter, "listening");
  t.teardown(() => squatter.close());
  const mesh = new TestMesh(t, {
    change: { workloads: [workload("c", at(3))] },
    config: { ports: { outbound: 15_001, plaintext: 15_006, hbone: 15_008, socks5: 15_080, httpConnect: 15_081, admin: 0, metrics: 0, readiness: 0 } },
  });
  const error = await t.throwsAsync(mesh.pod("c", at(3)));
  t.is(errorCode(error), "LINUX_LISTEN_FAILED");
  for (const port of [15_001, 15_006]) await t.throwsAsync(client(t, at(3), port), { code: "ECONNREFUSED" });
});

/** A listener that drains accepts what is there before it closes. */
async function listenersClosed(): Promise<void> {
  for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setImmediate(resolve));
}

test.serial("draining refuses new connections, lets open ones finish, and is over when they are", async (t) => {
  const app = await application(t, at(2), (socket) => void socket.pipe(socket));
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload("b", at(2))] } });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: app.port }));
  const b = await mesh.pod("b", at(2));
  const port = a.port("outbound") ?? 0;
  const socket = await client(t, at(1), port);
  socket.write("one");
  await once(socket, "data");
  const forever = new AbortController().signal;
  let over = false;
  const drained = Promise.all([a.drain({ signal: forever }), b.drain({ signal: forever })]).then(() => {
    over = true;
  });
  await listenersClosed();
  await t.throwsAsync(client(t, at(1), port), { code: "ECONNREFUSED" });
  await t.throwsAsync(client(t, at(2), 15_008), { code: "ECONNREFUSED" });
  t.false(over);
  socket.end("two");
  t.is((await readAll(socket)).toString(), "two");
  await drained;
  t.is(a.size + b.size, 0);
});

test.serial("a drain whose deadline passed leaves the rest to a stop, which ends every connection at once", async (t) => {
  const app = await application(t, at(2), (socket) => void socket.pipe(socket));
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload("b", at(2))] } });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: app.port }));
  await mesh.pod("b", at(2));
  const socket = await client(t, at(1), a.port("outbound") ?? 0);
  socket.write("one");
  await once(socket, "data");
  const deadline = new AbortController();
  const drained = a.drain({ signal: deadline.signal });
  deadline.abort();
  await drained;
  t.is(a.size, 1);
  const closed = once(socket, "close").catch(() => {});
  socket.on("end", () => socket.end());
  await a.stop(new Error("the deadline passed"));
  await closed;
  t.is(a.size, 0);
});

test.serial("connections wait for their own workload, and are served when it appears", async (t) => {
  const app = await application(t, at(2), (socket) => void socket.pipe(socket));
  const mesh = new TestMesh(t, { change: { workloads: [workload("b", at(2))] } });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: app.port }));
  await mesh.pod("b", at(2));
  const socket = await client(t, at(1), a.port("outbound") ?? 0);
  socket.end("early");
  mesh.mesh.apply({ workloads: [workload("a", at(1))] });
  t.is((await readAll(socket)).toString(), "early");
});

test.serial("before the mesh is known connections wait, and are refused when it does not come", async (t) => {
  const app = await application(t, at(2), (socket) => void socket.pipe(socket));
  const clock = new ManualClock();
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload("b", at(2))] }, synced: false, clock });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: app.port }));
  await mesh.pod("b", at(2));
  const refused = await client(t, at(1), a.port("outbound") ?? 0);
  const reading = t.throwsAsync(readAll(refused), { code: "ECONNRESET" });
  await eventually(t, () => a.size === 1);
  await clock.advance(5_000);
  await reading;
  await eventually(t, () => mesh.accessLines().some((line) => line.includes("the mesh is not known yet")));
  const waiting = await client(t, at(1), a.port("outbound") ?? 0);
  waiting.end("now");
  await eventually(t, () => a.size === 1);
  mesh.mesh.sync();
  t.is((await readAll(waiting)).toString(), "now");
});

test.serial("a connection that does not come about within 45 seconds is refused", async (t) => {
  const clock = new ManualClock();
  const silent = (_request: unknown, { signal }: { signal: AbortSignal }): Promise<never> =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload("b", at(2))] }, clock, ca: (own) => ({ ...own, sign: silent }) });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: 80 }));
  const socket = await client(t, at(1), a.port("outbound") ?? 0);
  const reading = t.throwsAsync(readAll(socket), { code: "ECONNRESET" });
  await eventually(t, () => a.size === 1);
  await clock.advance(44_999);
  t.is(a.size, 1);
  await clock.advance(1);
  await reading;
  await eventually(t, () => mesh.accessLines().some((line) => line.includes("within 45000 ms")));
});

test.serial("IPv6 pods are served like others", async (t) => {
  const app = await application(t, "::1", (socket) => void socket.pipe(socket)).catch(() => undefined);
  if (app === undefined) {
    t.log(`SKIPPED (needs IPv6 on loopback): ${t.title}`);
    t.pass();
    return;
  }
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", "::1")] } });
  const a = await mesh.pod("a", "::1", () => ({ ip: "::1", port: app.port }));
  const socket = await client(t, "::1", a.port("outbound") ?? 0);
  socket.end("six");
  t.is((await readAll(socket)).toString(), "six");
  await eventually(t, () => mesh.accessLines().some((line) => line.includes(`dst.hbone_addr=[::1]:${app.port}`)));
});
