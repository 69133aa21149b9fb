/** COMPLIANCE_POLICY=pqc from outside: the shipped program as server and as client of peers that offer the one key exchange, or others. */
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect as http2Connect } from "node:http2";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defaultServerSettings, leanEngine } from "@fairway/hbone";
import { type Listener, type PodNetwork, type SeqpacketConnection, SeqpacketServer } from "@fairway/linux";
import { parseSpiffeId, type SpiffeId } from "@fairway/model";
import { Authority, createMeshTls, localCaClient, postQuantumGroup, SecretManager, type WorkloadCertificate } from "@fairway/pki";
import { encodeZdsRequest } from "@fairway/protocol";
import { messageOf, silentLogger, systemClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { eventually, readAll } from "./test-mesh.ts";
import { skippedWithoutNamespaces, twoPods } from "./test-pods.ts";
import { dismiss, enrol, inPod, nodeNamespace, twoPodMesh, ztunnel } from "./test-program.ts";

const forever = new AbortController().signal;
const ownMark = 1337;
const [a, b] = ["a", "b"].map((name) => parseSpiffeId(`spiffe://cluster.local/ns/default/sa/${name}`)) as [SpiffeId, SpiffeId];
const classical = "X25519:P-256:P-384";
/** What a client of today offers: the post-quantum group among others. */
const both = `${postQuantumGroup}:${classical}`;

test.serial("with COMPLIANCE_POLICY=pqc peers without the post-quantum key exchange are refused, and those with it served, in both directions", async (t) => {
  if (skippedWithoutNamespaces(t)) return;
  const pods = twoPods(t);
  const directory = mkdtempSync(join(tmpdir(), "fwztunnel-"));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  writeFileSync(join(directory, "mesh.yaml"), twoPodMesh(pods.a.ip, pods.b.ip));
  const authority = Authority.createSelfSigned({ trustDomain: "cluster.local", clock: systemClock });
  const { caCert, caKey } = authority.exportPem();
  writeFileSync(join(directory, "ca-cert.pem"), caCert);
  writeFileSync(join(directory, "ca-key.pem"), caKey);
  const { promise, resolve } = Promise.withResolvers<SeqpacketConnection>();
  const server = await SeqpacketServer.listen(join(directory, "zds.sock"), resolve);
  t.teardown(() => server.close());
  const { child, output } = ztunnel(t, nodeNamespace(t), {
    XDS_ADDRESS: "",
    LOCAL_XDS_PATH: join(directory, "mesh.yaml"),
    LOCAL_CA_PATH: directory,
    INPOD_UDS: join(directory, "zds.sock"),
    ISTIO_META_DNS_CAPTURE: "false",
    LOG_FORMAT: "json",
    COMPLIANCE_POLICY: "pqc",
  });
  const agent = await Promise.race([promise, once(child, "exit").then(() => undefined)]);
  if (agent === undefined) return t.fail(output());
  await agent.receive({ signal: forever });
  t.is(await enrol(agent, "a", pods.a), "");
  t.is(await enrol(agent, "b", pods.b), "");
  await agent.send(encodeZdsRequest({ kind: "snapshot-sent" }), [], { signal: forever });
  await agent.receive({ signal: forever });
  const [inA, inB] = [await inPod(t, pods.a), await inPod(t, pods.b)];
  const certificates = new SecretManager({ ca: localCaClient(authority), clock: systemClock, log: silentLogger });
  t.teardown(() => certificates[Symbol.asyncDispose]());
  const own = (identity: SpiffeId) => certificates.fetch(identity, { signal: forever });
  const logged = (direction: string, text: RegExp): boolean =>
    output()
      .split("\n")
      .some((line) => line.includes(`"direction":"${direction}"`) && text.test(line));

  // The program as the server.
  await echo(inB, "0.0.0.0", 8_000);
  const dial = async () => (await inA.dial({ host: pods.b.ip, port: 15_008, mark: ownMark, timeoutMs: 5_000, signal: forever })).socket;
  const refused = await t.throwsAsync(ask(t, await dial(), await own(a), classical, `${pods.b.ip}:8000`));
  t.regex(messageOf(refused), /accepts none of our key exchanges/);
  await eventually(t, () => logged("inbound", /offers no key exchange that we accept; is COMPLIANCE_POLICY/));
  t.is(await ask(t, await dial(), await own(a), both, `${pods.b.ip}:8000`), "hello");
  t.is(await ask(t, await dial(), await own(a), postQuantumGroup, `${pods.b.ip}:8000`), "hello");

  // The program as the client, of a server of ours in b's place.
  t.is(await dismiss(agent, "b"), "");
  const speak = async (): Promise<Socket> => {
    const { socket } = await inA.dial({ host: pods.b.ip, port: 8_000, mark: 0, timeoutMs: 5_000, signal: forever });
    t.teardown(() => socket.destroy());
    socket.on("error", () => {});
    return socket.resume();
  };
  const certificate = await own(b);
  const old = await peer(t, inB, certificate, classical);
  await t.throwsAsync(readAll(await speak()), { code: "ECONNRESET" });
  await eventually(t, () => logged("outbound", /accepts none of our key exchanges or ciphers; is COMPLIANCE_POLICY/));
  old.close();
  await peer(t, inB, certificate, both);
  const served = await speak();
  served.end("hello");
  t.is((await readAll(served)).toString(), "hello");
});

async function echo(network: PodNetwork, host: string, port: number): Promise<void> {
  const onConnection = (socket: Socket): void =>
    void socket
      .on("error", () => {})
      .resume()
      .pipe(socket);
  await network.listen({ host, port, mark: 0, reusePort: false, transparent: false, backlog: 16, onConnection });
}

/** What comes back of a word that is sent through a CONNECT to `authority`, by a client of these groups. */
async function ask(t: ExecutionContext, raw: Socket, certificate: WorkloadCertificate, groups: string, authority: string): Promise<string> {
  t.teardown(() => raw.destroy());
  const { socket } = await createMeshTls({ clock: systemClock, groups }).connect(raw, certificate, [b], { signal: forever });
  const session = http2Connect("http://b", { createConnection: () => socket });
  session.on("error", () => {});
  t.teardown(() => session.destroy());
  const stream = session.request({ ":method": "CONNECT", ":authority": authority }, { endStream: false });
  stream.write("hello");
  const [headers] = await once(stream, "response");
  t.is(headers[":status"], 200);
  const [word] = await once(stream, "data");
  session.destroy();
  return String(word);
}

/** A proxy on b's port for tunnels that echoes whatever is asked for, with these groups. */
async function peer(t: ExecutionContext, network: PodNetwork, certificate: WorkloadCertificate, groups: string): Promise<Listener> {
  const tls = createMeshTls({ clock: systemClock, groups });
  const serve = async (raw: Socket): Promise<void> => {
    t.teardown(() => raw.destroy());
    const { socket } = await tls.accept(raw, certificate, { signal: forever });
    leanEngine.serve(socket, defaultServerSettings, (exchange) => {
      const stream = exchange.accept({}).duplex();
      stream.on("error", () => {});
      stream.pipe(stream);
    });
  };
  return network.listen({
    host: "0.0.0.0",
    port: 15_008,
    mark: 0,
    reusePort: true,
    transparent: false,
    backlog: 16,
    onConnection: (raw) => void serve(raw).catch(() => {}),
  });
}
