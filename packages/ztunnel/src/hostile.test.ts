import { once } from "node:events";
import { type ClientHttp2Session, connect as http2Connect, type OutgoingHttpHeaders } from "node:http2";
import { connect as tcpConnect } from "node:net";
import { type TLSSocket, connect as tlsConnect } from "node:tls";
import { parseSpiffeId } from "@fairway/model";
import { Authority, createMeshTls, localCaClient, SecretManager } from "@fairway/pki";
import { silentLogger, systemClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import type { ProxyConfig } from "./config.ts";
import { application, client, eventually, loopbackAddresses, policy, readAll, TestMesh, workload } from "./test-mesh.ts";

const at = loopbackAddresses();

/** Pod b with an application, and whoever wants to harm it. */
async function victim(t: ExecutionContext, config: Partial<ProxyConfig> = {}): Promise<{ mesh: TestMesh; port: number; accepted: () => number }> {
  let accepted = 0;
  const app = await application(t, at(2), (socket) => {
    accepted++;
    socket.pipe(socket);
  });
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload("b", at(2))] }, config });
  await mesh.pod("b", at(2));
  return { mesh, port: app.port, accepted: () => accepted };
}

/** A TLS connection to b, as anybody the CA signs for. The server's opinion of it may still be to come. */
async function proven(t: ExecutionContext, authority: Authority, identity: string): Promise<TLSSocket> {
  const id = parseSpiffeId(identity);
  const certificates = new SecretManager({ ca: localCaClient(authority), clock: systemClock, log: silentLogger });
  t.teardown(() => certificates[Symbol.asyncDispose]());
  const signal = new AbortController().signal;
  const certificate = await certificates.fetch(id, { signal });
  const raw = tcpConnect({ host: at(2), port: 15_008 });
  await once(raw, "connect");
  t.teardown(() => raw.destroy());
  const { socket } = await createMeshTls({ clock: systemClock }).connect(raw, certificate, [parseSpiffeId("spiffe://cluster.local/ns/default/sa/b")], {
    signal,
  });
  return socket;
}

async function session(t: ExecutionContext, authority: Authority, identity: string): Promise<ClientHttp2Session> {
  const socket = await proven(t, authority, identity);
  const made = http2Connect("http://b", { createConnection: () => socket });
  made.on("error", () => {});
  t.teardown(() => made.destroy());
  return made;
}

async function statusOf(made: ClientHttp2Session, headers: OutgoingHttpHeaders): Promise<number | string> {
  const stream = made.request(headers);
  const answer = new Promise<number | string>((resolve) => {
    stream.once("response", (received) => resolve(received[":status"] ?? 0));
    stream.once("error", (error) => resolve(error.message));
    stream.once("close", () => resolve(`reset ${stream.rstCode}`));
  });
  const status = await answer;
  stream.destroy();
  return status;
}

/** After every attack: an honest client is served as before. */
async function stillServes(t: ExecutionContext, mesh: TestMesh, port: number): Promise<void> {
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port }));
  const socket = await client(t, at(1), a.port("outbound") ?? 0);
  socket.end("honest");
  t.is((await readAll(socket)).toString(), "honest");
}

for (const [name, bytes] of [
  ["garbage", Buffer.from([0, 1, 2, 3, 255, 254, 253, 0, 0, 0, 0, 0])],
  ["an HTTP/1.1 request", Buffer.from("GET / HTTP/1.1\r\nhost: b\r\n\r\n")],
  ["a truncated ClientHello", Buffer.from("160301020001", "hex")],
] as const) {
  test.serial(`${name} on 15008 is closed, logged and harmless`, async (t) => {
    const { mesh, port, accepted } = await victim(t);
    const socket = await client(t, at(2), 15_008);
    socket.end(bytes);
    socket.resume();
    await once(socket, "close").catch(() => {});
    const logged = () => mesh.accessLines().find((line) => line.includes("\twarn\taccess\tconnection failed\t") && line.includes('direction="inbound"'));
    await eventually(t, () => logged() !== undefined);
    t.notRegex(logged() ?? "", /silent/, "nobody waited for the rest");
    t.is(accepted(), 0);
    await stillServes(t, mesh, port);
  });
}

test.serial("TLS without a client certificate is refused", async (t) => {
  const { mesh, port } = await victim(t);
  const socket = tlsConnect({ host: at(2), port: 15_008, ALPNProtocols: ["h2"], rejectUnauthorized: false, servername: "" });
  const ended = await Promise.race([once(socket, "error").then(([error]) => error.code as string), once(socket, "close").then(() => "closed")]);
  t.regex(ended, /CERTIFICATE_REQUIRED|ECONNRESET|closed/);
  await stillServes(t, mesh, port);
});

test.serial("a certificate of another authority is refused, and so is another trust domain of our own", async (t) => {
  const { mesh, port } = await victim(t);
  const foreign = Authority.createSelfSigned({ trustDomain: "cluster.local", clock: systemClock });
  await t.throwsAsync(proven(t, foreign, "spiffe://cluster.local/ns/default/sa/a"), { message: /handshake/ });
  const elsewhere = await proven(t, mesh.authority, "spiffe://other.example/ns/default/sa/a");
  if (!elsewhere.closed) await once(elsewhere.resume(), "close");
  t.true(elsewhere.closed);
  t.is(elsewhere.bytesRead, 0);
  await stillServes(t, mesh, port);
});

test.serial("each wrong CONNECT gets its status, and the tunnel goes on", async (t) => {
  const { mesh, port, accepted } = await victim(t);
  const made = await session(t, mesh.authority, "spiffe://cluster.local/ns/default/sa/a");
  const ask = (authority: string): Promise<number | string> => statusOf(made, { ":method": "CONNECT", ":authority": authority });
  t.is(await statusOf(made, { ":method": "GET", ":path": "/", ":scheme": "http", ":authority": `${at(2)}:${port}` }), 400, "GET");
  t.is(await ask("nonsense"), 400, "no port");
  t.is(await ask(`${at(2)}:99999`), 400, "no such port number");
  t.is(await ask(`${at(7)}:${port}`), 400, "another pod's address");
  t.is(await ask("unknown.default.svc.cluster.local:80"), 503, "unknown hostname");
  t.is(await ask(`${at(2)}:15001`), 503, "our own port");
  t.is(await ask(`${at(2)}:1`), 503, "nothing listens");
  mesh.mesh.apply({ policies: [policy("deny", { destinationPorts: [port] })] });
  t.is(await ask(`${at(2)}:${port}`), 401, "denied");
  t.is(accepted(), 0);
  mesh.mesh.apply({ removedPolicies: [`default/deny` as never] });
  t.is(await ask(`${at(2)}:${port}`), 200);
});

test.serial("a pod the mesh has forgotten serves nobody", async (t) => {
  const { mesh, port, accepted } = await victim(t);
  const made = await session(t, mesh.authority, "spiffe://cluster.local/ns/default/sa/a");
  mesh.mesh.apply({ removedWorkloads: [workload("b", at(2)).uid] });
  t.is(await statusOf(made, { ":method": "CONNECT", ":authority": `${at(2)}:${port}` }), 503);
  t.is(accepted(), 0);
});

test.serial("a flood of streams reset at once leaves the pod serving others", async (t) => {
  const { mesh, port } = await victim(t);
  const made = await session(t, mesh.authority, "spiffe://cluster.local/ns/default/sa/a");
  for (let index = 0; index < 300 && !made.destroyed; index++) {
    const stream = made.request({ ":method": "CONNECT", ":authority": `${at(2)}:${port}` });
    stream.on("error", () => {});
    stream.close(8);
  }
  await stillServes(t, mesh, port);
});

test.serial("clients that open connections and say nothing cannot keep honest ones out", async (t) => {
  const { mesh, port } = await victim(t, { maxPendingHandshakes: 8 });
  const silent = await Promise.all(Array.from({ length: 20 }, () => client(t, at(2), 15_008)));
  t.is(silent.length, 20);
  await stillServes(t, mesh, port);
  t.regex(await mesh.registry.metrics(), /fairway_ztunnel_overload_total\{bound="pending-handshakes"\} [1-9]\d*\n/);
});
