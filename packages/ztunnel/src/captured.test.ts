import { randomFillSync } from "node:crypto";
import type { Socket } from "node:net";
import { linuxPodNetwork, selfTest } from "@fairway/linux";
import test, { type ExecutionContext } from "ava";
import type { ProxyConfig } from "./config.ts";
import { capturedPod } from "./pod-proxy.ts";
import { eventually, policy, readAll, TestMesh, workload } from "./test-mesh.ts";
import { skippedWithoutNamespaces, type TestPod, twoPods } from "./test-pods.ts";

const inPod: Partial<ProxyConfig> = {
  ports: { outbound: 15_001, plaintext: 15_006, hbone: 15_008, socks5: 15_080, httpConnect: 15_081, admin: 0, metrics: 0, readiness: 0 },
  listenHost: "0.0.0.0",
  mark: 1337,
  reusePort: true,
  keepSource: "required",
  keepalive: { timeMs: 180_000, intervalMs: 180_000, retries: 9 },
};
const appPort = 8_000;
const signal = new AbortController().signal;

test.before(async () => {
  await selfTest().catch(() => {});
});

/** An application in a pod. Its sockets are the pod's own: no mark, nothing known of a mesh. */
async function applicationIn(t: ExecutionContext, pod: TestPod, serve: (socket: Socket) => void): Promise<void> {
  const network = linuxPodNetwork(pod.open());
  const options = { host: "0.0.0.0", port: appPort, mark: 0, reusePort: false, transparent: false, backlog: 16 };
  await network.listen({ ...options, onConnection: (socket) => serve(socket.resume()) });
  t.teardown(async () => {
    await network[Symbol.asyncDispose]();
    network.namespace?.[Symbol.dispose]();
  });
}

async function clientIn(t: ExecutionContext, pod: TestPod, host: string): Promise<Socket> {
  const network = linuxPodNetwork(pod.open());
  const { socket } = await network.dial({ host, port: appPort, mark: 0, timeoutMs: 5_000, signal });
  t.teardown(() => {
    socket.destroy();
    network.namespace?.[Symbol.dispose]();
  });
  return socket.resume();
}

test.serial("in real pods, a connection is captured, tunnelled, and reaches the application from the client's own address", async (t) => {
  if (skippedWithoutNamespaces(t)) return;
  const { a, b } = twoPods(t);
  let seen: string | undefined;
  await applicationIn(t, b, (socket) => {
    seen = socket.remoteAddress;
    socket.pipe(socket);
  });
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", a.ip), workload("b", b.ip)] } });
  await mesh.podIn(linuxPodNetwork(a.open()), "a", inPod);
  await mesh.podIn(linuxPodNetwork(b.open()), "b", inPod);
  const payload = randomFillSync(Buffer.alloc(4_194_304));
  const socket = await clientIn(t, a, b.ip);
  const answer = readAll(socket);
  socket.end(payload);
  t.true((await answer).equals(payload));
  t.is(seen, a.ip);
  await eventually(t, () => mesh.accessLines().filter((line) => line.includes("connection complete")).length === 2);
  const inbound = mesh.accessLines().find((line) => line.includes('direction="inbound" bytes_sent')) ?? "";
  t.regex(inbound, /src\.identity="spiffe:\/\/cluster\.local\/ns\/default\/sa\/a".*dst\.addr=10\.98\.0\.2:15008 dst\.hbone_addr=10\.98\.0\.2:8000/);
  t.regex(await mesh.registry.metrics(), /istio_tcp_received_bytes_total\{reporter="destination",source_workload="a".*\} 4194304\n/);
});

test.serial("in real pods, plaintext from outside the mesh passes with its own address, until an identity is demanded", async (t) => {
  if (skippedWithoutNamespaces(t)) return;
  const { a, b } = twoPods(t, { enrolled: false });
  let seen: string | undefined;
  await applicationIn(t, b, (socket) => {
    seen = socket.remoteAddress;
    socket.pipe(socket);
  });
  const mesh = new TestMesh(t, { change: { workloads: [workload("b", b.ip)] } });
  await mesh.podIn(linuxPodNetwork(b.open()), "b", inPod);
  const socket = await clientIn(t, a, b.ip);
  const answer = readAll(socket);
  socket.end("plain");
  t.is((await answer).toString(), "plain");
  t.is(seen, a.ip);
  mesh.mesh.apply({ policies: [policy("deny", { notPrincipals: [{ kind: "presence" }] })] });
  await t.throwsAsync(async () => readAll(await clientIn(t, a, b.ip)), { message: /ECONNRESET/ });
});

test.serial("in real pods, a pod reaches itself by its own address, and the mesh's ports cannot be used as targets", async (t) => {
  if (skippedWithoutNamespaces(t)) return;
  const { a, b } = twoPods(t);
  await applicationIn(t, b, (socket) => void socket.pipe(socket));
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", a.ip), workload("b", b.ip)] } });
  await mesh.podIn(linuxPodNetwork(a.open()), "a", inPod);
  await mesh.podIn(linuxPodNetwork(b.open()), "b", inPod);
  const own = await clientIn(t, b, b.ip);
  const answer = readAll(own);
  own.end("self");
  t.is((await answer).toString(), "self");
  for (const port of [15_001, 15_006]) {
    const network = linuxPodNetwork(a.open());
    const { socket } = await network.dial({ host: b.ip, port, mark: 0, timeoutMs: 5_000, signal });
    t.teardown(() => socket.destroy());
    await t.throwsAsync(readAll(socket.resume()), undefined, `port ${port}`);
    network.namespace?.[Symbol.dispose]();
  }
});

test.serial("in real pods, an application that asks for the mesh by SOCKS5 gets its tunnel, and nobody outside the pod can ask", async (t) => {
  if (skippedWithoutNamespaces(t)) return;
  const { a, b } = twoPods(t);
  let seen: string | undefined;
  await applicationIn(t, b, (socket) => {
    seen = socket.remoteAddress;
    socket.pipe(socket);
  });
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", a.ip), workload("b", b.ip)] } });
  const asking = { ...inPod, askingHost: "127.0.0.1" };
  await mesh.podIn(linuxPodNetwork(a.open()), "a", asking, [...capturedPod, "socks5", "http-connect"]);
  await mesh.podIn(linuxPodNetwork(b.open()), "b", asking, [...capturedPod, "socks5", "http-connect"]);
  const request = Buffer.concat([Buffer.of(5, 1, 0, 5, 1, 0, 1, ...b.ip.split(".").map(Number), appPort >> 8, appPort & 255), Buffer.from("asked")]);
  const inside = linuxPodNetwork(a.open());
  const { socket } = await inside.dial({ host: "127.0.0.1", port: 15_080, mark: 0, timeoutMs: 5_000, signal });
  t.teardown(() => {
    socket.destroy();
    inside.namespace?.[Symbol.dispose]();
  });
  const answer = readAll(socket.resume());
  socket.end(request);
  t.is((await answer).subarray(12).toString(), "asked");
  await eventually(t, () => mesh.accessLines().some((line) => /complete.*dst\.hbone_addr=10\.98\.0\.2:8000.*direction="outbound"/.test(line)));
  t.is(seen, a.ip);
  for (const port of [15_080, 15_081]) {
    const network = linuxPodNetwork(a.open());
    const outside = await network
      .dial({ host: b.ip, port, mark: 0, timeoutMs: 5_000, signal })
      .then(
        (dialled) => readAll(dialled.socket.resume()),
        (error: unknown) => Promise.reject(error),
      )
      .then(
        () => "reached",
        () => "refused",
      );
    t.is(outside, "refused", `port ${port}`);
    network.namespace?.[Symbol.dispose]();
  }
});
