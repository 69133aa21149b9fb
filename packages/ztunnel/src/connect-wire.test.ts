/** What a CONNECT says on the wire, both ways (ztunnel contract 1.4, 1.5, 5B.1): what ours carries to a peer that others wrote, and what we make of theirs. */
import { once } from "node:events";
import {
  type ClientHttp2Session,
  constants,
  connect as http2Connect,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  performServerHandshake,
} from "node:http2";
import { createServer, connect as tcpConnect } from "node:net";
import { networkId, parseSpiffeId, type Workload } from "@fairway/model";
import test, { type ExecutionContext } from "ava";
import type { ProxyConfig } from "./config.ts";
import { application, client, eventually, loopbackAddresses, policy, readAll, service, TestMesh, workload } from "./test-mesh.ts";

const at = loopbackAddresses();
const signal = new AbortController().signal;
const identity = (name: string): ReturnType<typeof parseSpiffeId> => parseSpiffeId(`spiffe://cluster.local/ns/default/sa/${name}`);

/** Stands where b's ztunnel would, speaks TLS and HTTP/2 by the platform, answers every CONNECT and echoes; the headers that came. */
async function foreignZtunnel(
  t: ExecutionContext,
  mesh: TestMesh,
  answer: OutgoingHttpHeaders = {},
): Promise<{ seen: IncomingHttpHeaders[]; tunnels: () => number }> {
  const certificate = await mesh.parts.certificates.fetch(identity("b"), { signal, priority: "realtime" });
  const seen: IncomingHttpHeaders[] = [];
  let tunnels = 0;
  const server = createServer((socket) => {
    socket.on("error", () => {});
    t.teardown(() => socket.destroy());
    mesh.parts.tls.accept(socket, certificate, { signal }).then(
      ({ socket: proven }) => {
        tunnels++;
        const session = performServerHandshake(proven);
        session.on("error", () => {});
        session.on("stream", (stream, headers) => {
          // Without the platform's own mark of what is secret.
          seen.push(Object.fromEntries(Object.entries(headers)));
          stream.on("error", () => {});
          stream.respond({ ":status": 200, ...answer });
          stream.pipe(stream);
        });
      },
      () => {},
    );
  });
  server.listen(15_008, at(2));
  await once(server, "listening");
  t.teardown(() => server.close());
  return { seen, tunnels: () => tunnels };
}

async function exchange(t: ExecutionContext, port: number | undefined): Promise<number> {
  const socket = await client(t, at(1), port ?? 0);
  const { localPort = 0 } = socket;
  socket.end("x");
  t.is((await readAll(socket)).toString(), "x");
  return localPort;
}

const ownBaggage =
  "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=a,service.name=a,service.version=v1,cloud.region=eu,cloud.availability_zone=eu-1";

test.serial("a CONNECT to a workload has its address as authority, the three headers of the contract and no other", async (t) => {
  const locality = { region: "eu", zone: "eu-1", subzone: "" };
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1), { locality }), workload("b", at(2))] } });
  const far = await foreignZtunnel(t, mesh);
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: 8_080 }));
  const port = await exchange(t, a.port("outbound"));
  const [{ traceparent, forwarded, ...headers } = {}] = far.seen;
  t.deepEqual({ ...headers }, { ":method": "CONNECT", ":authority": `${at(2)}:8080`, baggage: ownBaggage });
  t.regex(String(forwarded), new RegExp(`^for="127\\.0\\.0\\.1:${port}"$`));
  t.regex(String(traceparent), /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
});

test.serial("a CONNECT on the way to a service names the service, and is asked of the endpoint's address and port", async (t) => {
  const { service: web, workloads } = service("web", "10.96.0.1", 80, 8_080, [workload("b", at(2))]);
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), ...workloads], services: [web] } });
  const far = await foreignZtunnel(t, mesh);
  const a = await mesh.pod("a", at(1), () => ({ ip: "10.96.0.1", port: 80 }));
  const port = await exchange(t, a.port("outbound"));
  t.is(far.seen[0]?.[":authority"], `${at(2)}:8080`);
  t.is(far.seen[0]?.["forwarded"], `for="127.0.0.1:${port}";host=web.default.svc.cluster.local`);
});

test.serial("each connection of one tunnel has a trace of its own", async (t) => {
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload("b", at(2))] } });
  const far = await foreignZtunnel(t, mesh);
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: 8_080 }));
  for (let turn = 0; turn < 3; turn++) await exchange(t, a.port("outbound"));
  t.is(far.tunnels(), 1);
  t.is(new Set(far.seen.map(({ traceparent }) => traceparent)).size, 3);
});

test.serial("the answer's baggage does not rename a destination that the mesh knows", async (t) => {
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload("b", at(2))] } });
  await foreignZtunnel(t, mesh, { baggage: "k8s.namespace.name=elsewhere,k8s.deployment.name=somebody" });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: 8_080 }));
  await exchange(t, a.port("outbound"));
  await eventually(t, () => mesh.accessLines().some((line) => /complete.*dst\.workload="b" dst\.namespace="default"/.test(line)));
});

interface Asked {
  readonly mesh: TestMesh;
  readonly port: number;
  readonly ask: (headers?: OutgoingHttpHeaders) => Promise<{ status: number; baggage: string | undefined }>;
}

/** Pod b, and a client at a's address that proved to be a, unless told otherwise. */
async function inbound(t: ExecutionContext, config: Partial<ProxyConfig> = {}, own: Partial<Workload> = {}, proves = "a"): Promise<Asked> {
  const app = await application(t, at(2), (socket) => void socket.pipe(socket));
  const { network = networkId("") } = config;
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1), { network }), workload("b", at(2), { network, ...own })] }, config });
  await mesh.pod("b", at(2), undefined, ["hbone"]);
  const certificate = await mesh.parts.certificates.fetch(identity(proves), { signal, priority: "realtime" });
  const raw = tcpConnect({ host: at(2), port: 15_008, localAddress: at(1) });
  await once(raw, "connect");
  const { socket } = await mesh.parts.tls.connect(raw, certificate, [identity("b")], { signal });
  const session: ClientHttp2Session = http2Connect("http://b", { createConnection: () => socket });
  session.on("error", () => {});
  t.teardown(() => {
    session.destroy();
    raw.destroy();
  });
  const ask: Asked["ask"] = async (headers = {}) => {
    const stream = session.request({ ":method": "CONNECT", ":authority": `${at(2)}:${app.port}`, ...headers }, { endStream: false });
    stream.on("error", () => {});
    const [received] = await once(stream, "response");
    stream.close(constants.NGHTTP2_CANCEL);
    return { status: Number(received[":status"]), baggage: received["baggage"] };
  };
  return { mesh, port: app.port, ask };
}

const elsewhere = "k8s.namespace.name=east,k8s.deployment.name=far-app";

for (const [what, own, headers, expected] of [
  ["by the address that it comes from", "West", {}, /src\.workload="a" src\.namespace="default"/],
  ["by its address when it says to be of our network, in any case", "West", { "x-forwarded-network": "wEST", baggage: elsewhere }, /src\.workload="a"/],
  [
    "by what it says of itself when it is of another network",
    "West",
    { "x-forwarded-network": "east", baggage: elsewhere },
    /src\.workload="far-app" src\.namespace="east"/,
  ],
] as const) {
  test.serial(`a client is known ${what}`, async (t) => {
    const { mesh, ask } = await inbound(t, { network: networkId(own) });
    t.is((await ask(headers)).status, 200);
    await eventually(t, () => mesh.accessLines().some((line) => line.includes("connection complete")));
    t.regex(mesh.accessLines().find((line) => line.includes("connection complete")) ?? "", expected);
  });
}

test.serial("a client that proves to be another than the workload at its address is known by what it proves and says", async (t) => {
  const { mesh, ask } = await inbound(t, {}, {}, "c");
  t.is((await ask({ baggage: elsewhere })).status, 200);
  await eventually(t, () => mesh.accessLines().some((line) => line.includes("connection complete")));
  const line = mesh.accessLines().find((each) => each.includes("connection complete")) ?? "";
  t.regex(line, /src\.workload="far-app" src\.namespace="east" src\.identity="spiffe:\/\/cluster\.local\/ns\/default\/sa\/c"/);
});

test.serial("with ENABLE_RESPONSE_BAGGAGE off nothing is said of the destination, and nothing believed of the client", async (t) => {
  const { mesh, ask } = await inbound(t, { baggage: false });
  t.is((await ask()).baggage, undefined);
  await ask({ "x-forwarded-network": "east", baggage: elsewhere });
  await eventually(t, () => mesh.accessLines().filter((line) => line.includes("connection complete")).length === 2);
  t.false(mesh.accessLines().some((line) => line.includes("far-app")));
});

test.serial("headers that the contract does not know change nothing", async (t) => {
  const { ask } = await inbound(t);
  const headers = {
    host: "elsewhere",
    "user-agent": "x",
    "x-istio-source": "gateway",
    "x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/root/sa/admin",
  };
  t.is((await ask(headers)).status, 200);
});

test.serial("policy sees the port that the application tunnel leads to, not the one that was asked for", async (t) => {
  const app = await application(t, at(2), (socket) => void socket.pipe(socket));
  const tunnel = { applicationTunnel: { protocol: "none" as const, port: app.port } };
  const { mesh, ask, port } = await inbound(t, {}, tunnel);
  mesh.mesh.apply({ policies: [policy("deny", { destinationPorts: [port] })] });
  t.is((await ask()).status, 200, "the port that was asked for");
  mesh.mesh.apply({ policies: [policy("deny", { destinationPorts: [app.port] })] });
  t.is((await ask()).status, 401);
});

test.serial("a policy in dry run is said in the log and decides nothing", async (t) => {
  const { mesh, ask, port } = await inbound(t);
  mesh.mesh.apply({ policies: [{ ...policy("deny", { destinationPorts: [port] }), dryRun: true }] });
  t.is((await ask()).status, 200);
  await eventually(t, () => mesh.lines.some((line) => /\tinfo\t.*policy\tdry run\t.*policy="default\/deny".*effect=/.test(line)));
});
