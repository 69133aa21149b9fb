/** Traffic between networks through running pods and an east-west gateway that sees nothing of it (ztunnel contract 1.10, 5.5). */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { type ConnectRequest, defaultServerSettings, type TunnelEngine } from "@fairway/hbone";
import { networkId, parseIp, parseSpiffeId, type Service, type SpiffeId, type Workload } from "@fairway/model";
import { createMeshTls, parseRevocationLists } from "@fairway/pki";
import { systemClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { Revocation } from "./revocation.ts";
import { application, client, eventually, loopbackAddresses, policy, readAll, service, TestMesh, workload } from "./test-mesh.ts";
import { skippedWithoutOpenssl, TestRevocation } from "./test-revocation.ts";

const at = loopbackAddresses();
const near = networkId("near");
const far = networkId("far");
const id = (name: string): SpiffeId => parseSpiffeId(`spiffe://cluster.local/ns/default/sa/${name}`);

/** Ends outer tunnels, and joins each stream to the far network's proxy. */
async function gateway(t: ExecutionContext, mesh: TestMesh, { host, as, towards }: { host: string; as: string; towards: string }) {
  const asked: ConnectRequest[] = [];
  const carried: Buffer[] = [];
  let tunnels = 0;
  const { tls, engine, certificates } = mesh.parts;
  const signal = new AbortController().signal;
  const take = async (socket: Socket): Promise<void> => {
    const { socket: proven } = await tls.accept(socket, await certificates.fetch(id(as), { signal, priority: "realtime" }), { signal });
    tunnels += 1;
    engine.serve(proven, defaultServerSettings, (exchange) => {
      asked.push(exchange.request);
      const onward = connect({ host: towards, port: 15_008, allowHalfOpen: true });
      onward.on("error", () => exchange.reject(503));
      onward.once("connect", () => {
        onward.on("data", (chunk) => carried.push(chunk));
        void exchange.accept({}).pipe(onward, { signal });
      });
    });
  };
  const server = createServer({ allowHalfOpen: true }, (socket) => void take(socket).catch(() => socket.destroy()));
  server.listen(15_008, host);
  await once(server, "listening");
  t.teardown(() => server.close());
  return { asked, carried, tunnels: () => tunnels };
}

/** The server's side of `engine`, writing down what it is asked for. */
function listening(engine: TunnelEngine, heard: ConnectRequest[]): TunnelEngine["serve"] {
  return (transport, settings, onConnect) =>
    engine.serve(transport, settings, (exchange) => {
      heard.push(exchange.request);
      onConnect(exchange);
    });
}

interface Given {
  readonly sans?: readonly SpiffeId[];
  readonly gatewayIs?: string;
  readonly gateways?: readonly string[];
  readonly serve?: (socket: Socket) => void;
  readonly ca?: TestRevocation;
}

/** `a` here, `b` behind the gateway in the other network, the service `web` in front of `b`. */
async function start(
  t: ExecutionContext,
  { sans = [id("b")], gatewayIs = "gw", gateways = [at(3)], serve = (socket) => void socket.pipe(socket), ca }: Given = {},
) {
  const app = await application(t, at(2), serve);
  const edge: Service = { ...service("edge", "10.96.0.9", 15_008, 15_008, []).service, vips: [{ network: near, ip: parseIp("10.96.0.9") }] };
  const replicas = service(
    "edge",
    "10.96.0.9",
    15_008,
    15_008,
    gateways.map((ip, index) => workload(`gw${index}`, ip, { serviceAccount: "gw", network: near })),
  ).workloads;
  const networkGateway: Workload["networkGateway"] = { destination: { kind: "hostname", namespace: "default", hostname: edge.hostname }, hbonePort: 15_008 };
  const web = service("web", "10.96.0.1", 80, app.port, [workload("b", at(2), { network: far, networkGateway })]);
  const services: Service[] = [edge, { ...web.service, vips: [{ network: near, ip: parseIp("10.96.0.1") }], subjectAltNames: sans }];
  const change = { workloads: [workload("a", at(1), { network: near }), ...replicas, ...web.workloads], services };
  const mesh = new TestMesh(t, { change, ...(ca === undefined ? {} : { authority: ca.authority }) });
  const revocation = new Revocation({ lists: [], metrics: mesh.parts.metrics });
  if (ca !== undefined) Object.assign(mesh.parts, { revocation, tls: createMeshTls({ clock: systemClock, isRevoked: revocation.isRevoked }) });
  const arrived: ConnectRequest[] = [];
  const { engine } = mesh.parts;
  Object.assign(mesh.parts, { engine: { ...engine, serve: listening(engine, arrived) } });
  await mesh.pod("b", at(2), undefined, undefined, { network: far });
  Object.assign(mesh.parts, { engine });
  const a = await mesh.pod("a", at(1), () => ({ ip: "10.96.0.1", port: 80 }), undefined, { network: near });
  const edges = await gateway(t, mesh, { host: at(3), as: gatewayIs, towards: at(2) });
  return { mesh, a, edges, arrived, app, revocation, dial: () => client(t, at(1), a.port("outbound") ?? 0) };
}

const lines = (mesh: TestMesh, direction: string): string[] =>
  mesh.accessLines().filter((line) => line.includes("connection complete") && line.includes(`direction="${direction}"`));

test.serial("a connection crosses networks in a tunnel within a tunnel, with both ends proven to each other and the gateway to one", async (t) => {
  const { mesh, edges, arrived, dial } = await start(t);
  const socket = await dial();
  socket.end("nobody reads this on the way");
  t.is((await readAll(socket)).toString(), "nobody reads this on the way");
  await eventually(t, () => lines(mesh, "outbound").length === 1 && lines(mesh, "inbound").length === 1);

  const [outer] = edges.asked;
  t.is(outer?.authority, "web.default.svc.cluster.local:80");
  t.is(outer?.forwardedNetwork, undefined, "only the inner CONNECT tells the network");
  t.deepEqual(
    arrived.map(({ authority, forwardedNetwork }) => [authority, forwardedNetwork]),
    [["web.default.svc.cluster.local:80", "near"]],
  );
  t.false(Buffer.concat(edges.carried).includes("nobody reads"));

  const [outbound = ""] = lines(mesh, "outbound");
  t.regex(outbound, new RegExp(`dst\\.addr=${at(3)}:15008 dst\\.hbone_addr=web\\.default\\.svc\\.cluster\\.local:80 dst\\.service="web\\.default`));
  t.regex(outbound, /dst\.workload="b" dst\.namespace="default" dst\.identity="spiffe:\/\/cluster\.local\/ns\/default\/sa\/b"/);
  const [inbound = ""] = lines(mesh, "inbound");
  t.regex(inbound, /src\.workload="a".*src\.identity="spiffe:\/\/cluster\.local\/ns\/default\/sa\/a"/);
  t.regex(
    await mesh.registry.metrics(),
    /istio_tcp_connections_opened_total\{reporter="source",source_workload="a",.*destination_workload="b",.*destination_principal="spiffe:\/\/cluster\.local\/ns\/default\/sa\/b",.*connection_security_policy="mutual_tls"/,
  );
});

test.serial("many connections share the outer tunnel; each has an inner one of its own, and lets go of it", async (t) => {
  const { a, edges, dial } = await start(t);
  const sockets = await Promise.all(Array.from({ length: 8 }, dial));
  const answers = await Promise.all(sockets.map((socket, index) => readAll(socket.end(`${index}`))));
  t.deepEqual(answers.map(String), ["0", "1", "2", "3", "4", "5", "6", "7"]);
  t.is(edges.tunnels(), 1);
  t.is(edges.asked.length, 8);
  await eventually(t, () => a.size === 0);
});

test.serial("the FIN of each side is carried across", async (t) => {
  const { promise: heard, resolve } = Promise.withResolvers<string>();
  const serve = (socket: Socket): void => {
    socket.end("bye");
    readAll(socket).then(
      (bytes) => resolve(bytes.toString()),
      (error) => resolve(String(error)),
    );
  };
  const { dial } = await start(t, { serve });
  const socket = await dial();
  t.is((await readAll(socket)).toString(), "bye");
  socket.end("and you");
  t.is(await heard, "and you", "the application hears the client's end long after its own");
});

test.serial("five megabytes arrive unchanged", async (t) => {
  const { dial } = await start(t);
  const socket = await dial();
  const sent = Buffer.alloc(5 * 1_048_576, "0123456789abcdef");
  socket.end(sent);
  t.true((await readAll(socket)).equals(sent));
});

for (const [what, given, reason, flag] of [
  ["a far proxy that is somebody else", { sans: [id("other")] }, /identity/, "TLS_FAILURE"],
  ["a service that publishes no identities", { sans: [] }, /publishes no identities/, "TLS_FAILURE"],
  ["a gateway that is somebody else", { gatewayIs: "impostor" }, /identity/, "TLS_FAILURE"],
] as const) {
  test.serial(`${what} gets nothing`, async (t) => {
    let reached = 0;
    const { mesh, dial } = await start(t, { ...given, serve: () => void reached++ });
    await t.throwsAsync(async () => readAll((await dial()).end("secret")), { code: "ECONNRESET" });
    await eventually(t, () => lines(mesh, "outbound").length === 1);
    t.regex(lines(mesh, "outbound")[0] ?? "", reason);
    t.regex(await mesh.registry.metrics(), new RegExp(`istio_tcp_connections_failed_total\\{reporter="source",.*response_flags="${flag}"`));
    t.is(reached, 0);
  });
}

test.serial("a policy of the far side refuses by the identity of the source, not of the gateway", async (t) => {
  const { mesh, dial } = await start(t);
  mesh.mesh.apply({ policies: [policy("deny", { principals: [{ kind: "exact", value: "cluster.local/ns/default/sa/a" }] })] });
  await t.throwsAsync(async () => readAll(await dial()), { code: "ECONNRESET" });
  await eventually(t, () => lines(mesh, "outbound").length === 1);
  t.regex(lines(mesh, "outbound")[0] ?? "", /status 401/);
  mesh.mesh.apply({ policies: [policy("deny", { principals: [{ kind: "exact", value: "cluster.local/ns/default/sa/gw" }] })] });
  const socket = await dial();
  t.is((await readAll(socket.end("in"))).toString(), "in");
});

test.serial("a policy that changes ends what lives across networks", async (t) => {
  const { a, mesh, dial } = await start(t);
  const socket = await dial();
  socket.write("one");
  await once(socket, "data");
  const closed = once(socket, "close");
  mesh.mesh.apply({ policies: [policy("deny", { namespaces: [{ kind: "exact", value: "default" }] })] });
  socket.once("end", () => socket.end());
  await closed;
  await eventually(t, () => a.size === 0);
});

for (const [what, name] of [
  ["the gateway, which ends the outer tunnel", "gw"],
  ["the far proxy, which ends the inner tunnel", "b"],
] as const) {
  test.serial(`a connection ends when ${what}, is revoked`, async (t) => {
    if (skippedWithoutOpenssl(t)) return;
    const ca = new TestRevocation(t);
    const { mesh, dial, revocation } = await start(t, { ca });
    const socket = await dial();
    socket.write("one");
    await once(socket, "data");
    const closed = once(socket, "close");
    socket.once("end", () => socket.end());
    const { serialNumber } = await mesh.parts.certificates.fetch(id(name), { signal: new AbortController().signal, priority: "realtime" });
    revocation.replace(parseRevocationLists(Buffer.from(ca.ofSigner(serialNumber))));
    await closed;
    await eventually(t, () => lines(mesh, "outbound").length === 1);
    t.regex(lines(mesh, "outbound")[0] ?? "", /error="connection closed: peer certificate revoked by CRL"/);
    t.regex(await mesh.registry.metrics(), /istio_crl_policy_rejections_total\{reporter="source"\} 1/);
  });
}

test.serial("a gateway's replica that cannot be reached gives way to another", async (t) => {
  const { dial, mesh } = await start(t, { gateways: [at(8), at(3)] });
  for (let turn = 0; turn < 4; turn++) t.is((await readAll((await dial()).end("found"))).toString(), "found");
  t.is(lines(mesh, "outbound").filter((line) => line.includes("error=")).length, 0);
});

test.serial("a workload of another network is not reached by its address", async (t) => {
  const { mesh } = await start(t);
  const direct = await mesh.pod("a", at(4), () => ({ ip: at(2), port: 80 }), undefined, { network: near });
  mesh.mesh.apply({ workloads: [workload("a", at(1), { network: near })] });
  // Nobody of this network has the address: it is nobody's, and what answers there is no mesh.
  await t.throwsAsync(async () => readAll(await client(t, at(4), direct.port("outbound") ?? 0)));
});
