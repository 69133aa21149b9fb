import { createHash, randomFillSync } from "node:crypto";
import { once } from "node:events";
import type { Socket } from "node:net";
import type { AuthorizationPolicy, WorkloadUid } from "@fairway/model";
import { captureProbeDestinations } from "@fairway/protocol";
import test, { type ExecutionContext } from "ava";
import type { PodProxy } from "./pod-proxy.ts";
import { application, client, eventually, loopbackAddresses, policy, readAll, service, TestMesh, type TestMeshOptions, workload } from "./test-mesh.ts";

const at = loopbackAddresses();
const megabyte = 1_048_576;

/** Pods a and b, an application in b, and the way in from a. */
async function pair(
  t: ExecutionContext,
  serve: (socket: Socket) => void,
  options: Partial<TestMeshOptions> = {},
): Promise<{ mesh: TestMesh; a: PodProxy; b: PodProxy; port: number; connect: () => Promise<Socket> }> {
  const app = await application(t, at(2), serve);
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload("b", at(2))] }, ...options });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: app.port }));
  const b = await mesh.pod("b", at(2));
  return { mesh, a, b, port: app.port, connect: () => client(t, at(1), a.port("outbound") ?? 0) };
}

const echo = (socket: Socket): void => void socket.pipe(socket);

test.serial("bytes pass from a captured client through a tunnel to the application and back, and both ends log them", async (t) => {
  const { mesh, connect } = await pair(t, echo);
  const socket = await connect();
  socket.end("hello");
  t.is((await readAll(socket)).toString(), "hello");
  await eventually(t, () => completed(mesh).length === 2);
  const [inbound = "", outbound = ""] = completed(mesh);
  t.regex(
    inbound,
    /src\.identity="spiffe:\/\/cluster\.local\/ns\/default\/sa\/a" .*dst\.identity="spiffe:\/\/cluster\.local\/ns\/default\/sa\/b".*direction="inbound" bytes_sent=5 bytes_recv=5/,
  );
  t.regex(
    outbound,
    /src\.workload="a".*dst\.addr=127\.[\d.]+:15008 dst\.hbone_addr=127\.[\d.]+:\d+ dst\.workload="b".*direction="outbound" bytes_sent=5 bytes_recv=5/,
  );
});

for (const { ip, port } of captureProbeDestinations) {
  test.serial(`the node agent's capture probe of ${ip} is answered with a FIN, and nobody hears of it`, async (t) => {
    const mesh = new TestMesh(t, { change: { workloads: [] } });
    const a = await mesh.pod("a", at(1), () => ({ ip, port }));
    const counted = async (): Promise<string[]> => (await mesh.registry.metrics()).split("\n").filter((line) => /^(istio_tcp|fairway_ztunnel)/.test(line));
    const before = await counted();
    const socket = await client(t, at(1), a.port("outbound") ?? 0);
    t.is((await readAll(socket)).toString(), "");
    socket.end();
    await once(socket, "close");
    t.is(socket.errored, null);
    t.is(a.size, 0);
    t.deepEqual(mesh.accessLines(), []);
    t.deepEqual(await counted(), before);
    t.true(mesh.lines.some((line) => line.includes("\tdebug\t") && line.includes("capture probe")));
  });
}

test.serial("a server that speaks first is heard", async (t) => {
  const { connect } = await pair(t, (socket) => void socket.write("220 ready\r\n"));
  const socket = await connect();
  const [greeting] = await once(socket, "data");
  t.is(String(greeting), "220 ready\r\n");
});

test.serial("the client's FIN reaches the application, which may answer long after", async (t) => {
  const { connect } = await pair(t, (socket) => {
    socket.resume().once("end", () => setTimeout(() => socket.end("after the end"), 100));
  });
  const socket = await connect();
  socket.end("request");
  t.is((await readAll(socket)).toString(), "after the end");
});

test.serial("the application's FIN reaches the client, which may go on sending", async (t) => {
  const { promise, resolve } = Promise.withResolvers<string>();
  const { connect } = await pair(t, (socket) => {
    socket.end("bye");
    readAll(socket).then(
      (bytes) => resolve(bytes.toString()),
      () => resolve("lost"),
    );
  });
  const socket = await connect();
  t.is((await readAll(socket)).toString(), "bye");
  socket.end("still here");
  t.is(await promise, "still here");
});

test.serial("fifty megabytes arrive unchanged in both directions", async (t) => {
  const { connect } = await pair(t, echo);
  const socket = await connect();
  const chunk = randomFillSync(Buffer.alloc(megabyte));
  const [sent, received] = [createHash("sha256"), createHash("sha256")];
  let count = 0;
  socket.on("data", (bytes: Buffer) => {
    received.update(bytes);
    count += bytes.length;
  });
  const ended = once(socket, "end");
  for (let index = 0; index < 50; index++) {
    sent.update(chunk);
    if (!socket.write(chunk)) await once(socket, "drain");
  }
  socket.end();
  await ended;
  t.is(count, 50 * megabyte);
  t.is(received.digest("hex"), sent.digest("hex"));
});

test.serial("an application that hangs up in the middle of an upload ends the upload", async (t) => {
  const { connect, a } = await pair(t, (socket) => socket.once("readable", () => socket.end("enough", () => socket.destroy())));
  const socket = await connect();
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.on("data", () => {});
  const chunk = Buffer.alloc(megabyte);
  const send = (): void => {
    while (!socket.destroyed && socket.writableLength < 8 * megabyte) socket.write(chunk);
    if (!socket.destroyed) socket.once("drain", send);
  };
  send();
  await closed;
  await eventually(t, () => a.size === 0);
});

test.serial("many connections share one tunnel", async (t) => {
  const { mesh, connect } = await pair(t, echo);
  const sockets = await Promise.all(Array.from({ length: 20 }, connect));
  const answers = await Promise.all(sockets.map((socket, index) => readAll(socket.end(`${index}`))));
  t.deepEqual(
    answers.map(String),
    sockets.map((_, index) => `${index}`),
  );
  t.regex(await mesh.registry.metrics(), /fairway_hbone_tunnels_dialled_total 1\n/);
});

test.serial("a denied client gets a reset before any byte reaches the application, and the log says who and why", async (t) => {
  let accepted = 0;
  const { mesh, connect } = await pair(t, () => void accepted++);
  mesh.mesh.apply({ policies: [policy("deny", { principals: [{ kind: "exact", value: "cluster.local/ns/default/sa/a" }] })] });
  const socket = await connect();
  socket.write("secret");
  await t.throwsAsync(readAll(socket), { code: "ECONNRESET" });
  t.is(accepted, 0);
  await eventually(t, () => completed(mesh).length === 2);
  const inbound = completed(mesh).find((line) => line.includes('direction="inbound"')) ?? "";
  t.regex(inbound, /^\S+\terror\taccess\tconnection complete\t/);
  t.regex(
    inbound,
    /error="connection closed due to policy rejection: .*default\/deny.*source identity spiffe:\/\/cluster\.local\/ns\/default\/sa\/a, destination identity spiffe:\/\/cluster\.local\/ns\/default\/sa\/b/,
  );
  t.regex(
    await mesh.registry.metrics(),
    /istio_tcp_connections_failed_total\{reporter="destination",.*response_flags="DENY",connection_security_policy="mutual_tls"\} 1\n/,
  );
});

test.serial("a policy that changes ends the connections it no longer permits, and no other", async (t) => {
  const { mesh, connect, port } = await pair(t, echo);
  const socket = await connect();
  socket.write("one");
  await once(socket, "data");
  mesh.mesh.apply({ policies: [policy("deny", { destinationPorts: [port + 1] })] });
  socket.write("two");
  await once(socket, "data");
  const closed = once(socket, "end");
  mesh.mesh.apply({ policies: [policy("deny", { destinationPorts: [port] })] });
  await closed;
  await eventually(t, () => mesh.accessLines().some((line) => line.includes('error="connection closed due to policy change') && line.includes("default/deny")));
  t.regex(await mesh.registry.metrics(), /istio_tcp_connections_closed_total\{reporter="destination",.*response_flags="DENY"/);
});

test.serial("a selector policy added to the workload's own list ends its connections", async (t) => {
  const { mesh, connect } = await pair(t, echo);
  const selected: AuthorizationPolicy = { ...policy("deny", { namespaces: [{ kind: "exact", value: "default" }] }), scope: "workload-selector" };
  mesh.mesh.apply({ policies: [selected] });
  const socket = await connect();
  socket.write("one");
  await once(socket, "data");
  const closed = once(socket, "end");
  const [key] = [...mesh.mesh.snapshot.policies()].map(({ namespace, name }) => `${namespace}/${name}` as never);
  mesh.mesh.apply({ workloads: [workload("b", at(2), { authorizationPolicies: key === undefined ? [] : [key] })] });
  await closed;
  t.pass();
});

test.serial("what the mesh does not know is reached in plaintext, as if there were no mesh", async (t) => {
  const app = await application(t, at(9), echo);
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1))] } });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(9), port: app.port }));
  const socket = await client(t, at(1), a.port("outbound") ?? 0);
  socket.end("plain");
  t.is((await readAll(socket)).toString(), "plain");
  await eventually(t, () => completed(mesh).length === 1);
  t.notRegex(completed(mesh)[0] ?? "", /identity/);
});

test.serial("a connection to a service whose first endpoint refuses is served by another", async (t) => {
  const app = await application(t, at(2), (socket) => void socket.end("b"));
  const { service: web, workloads } = service("web", at(200), 80, app.port, [workload("b", at(2)), workload("gone", at(8))]);
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), ...workloads], services: [web] } });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(200), port: 80 }));
  await mesh.pod("b", at(2));
  for (let round = 0; round < 12; round++) t.is((await readAll(await client(t, at(1), a.port("outbound") ?? 0))).toString(), "b");
  t.regex(await mesh.registry.metrics(), /fairway_ztunnel_outbound_retries_total [1-9]/);
});

test.serial("a peer that proves another identity than expected gets nothing", async (t) => {
  let accepted = 0;
  const app = await application(t, at(2), () => void accepted++);
  const theirs = new TestMesh(t, { change: { workloads: [workload("b", at(2))] } });
  await theirs.pod("b", at(2));
  // Here the address is already said to be c's.
  const ours = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload("c", at(2))] }, authority: theirs.authority });
  const a = await ours.pod("a", at(1), () => ({ ip: at(2), port: app.port }));
  await t.throwsAsync(async () => readAll(await client(t, at(1), a.port("outbound") ?? 0)), { code: "ECONNRESET" });
  t.is(accepted, 0);
  t.regex(await ours.registry.metrics(), /istio_tcp_connections_failed_total\{reporter="source",.*response_flags="TLS_FAILURE"/);
});

test.serial("a workload that left the mesh loses its tunnels, so its address can have a new owner", async (t) => {
  const { mesh, connect } = await pair(t, echo);
  const first = await connect();
  first.write("x");
  await once(first, "data");
  mesh.mesh.apply({
    workloads: [{ ...workload("b", at(2)), uid: "Kubernetes//Pod/default/b-next" as WorkloadUid }],
    removedWorkloads: [workload("b", at(2)).uid],
  });
  const second = await connect();
  second.end("y");
  t.is((await readAll(second)).toString(), "y");
  t.regex(await mesh.registry.metrics(), /fairway_hbone_tunnels_dialled_total 2\n/);
  first.end("z");
  t.is((await readAll(first)).toString(), "z");
});

test.serial("without a certificate nothing leaves", async (t) => {
  let accepted = 0;
  const { mesh, connect } = await pair(t, () => void accepted++, {
    ca: (own) => ({ sign: () => Promise.reject(new Error("no CA")), [Symbol.asyncDispose]: () => own[Symbol.asyncDispose]() }),
  });
  await t.throwsAsync(async () => readAll(await connect()), { code: "ECONNRESET" });
  t.is(accepted, 0);
  await eventually(t, () => mesh.accessLines().some((line) => line.includes("there is no certificate")));
  t.regex(await mesh.registry.metrics(), /istio_tcp_connections_failed_total\{reporter="source",.*response_flags="IDENTITY_ERROR"/);
});

function completed(mesh: TestMesh): string[] {
  return mesh.accessLines().filter((line) => line.includes("\tconnection complete\t"));
}
