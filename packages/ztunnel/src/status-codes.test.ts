/** Every status that a CONNECT can be answered with (ztunnel contract 1.6), and how each comes about, asked of a running pod. */
import { once } from "node:events";
import { type ClientHttp2Session, constants, connect as http2Connect, type IncomingHttpHeaders, type OutgoingHttpHeaders } from "node:http2";
import { connect as tcpConnect } from "node:net";
import { parseSpiffeId, type Snapshot, type SnapshotChange, type Workload } from "@fairway/model";
import { MeshError } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { application, eventually, loopbackAddresses, policy, service, TestMesh, workload } from "./test-mesh.ts";

const at = loopbackAddresses();
const signal = new AbortController().signal;
const b = parseSpiffeId("spiffe://cluster.local/ns/default/sa/b");

/** Pod b, and an HTTP/2 client that proved to be a. */
async function start(t: ExecutionContext, own: Partial<Workload> = {}): Promise<{ mesh: TestMesh; port: number; session: ClientHttp2Session }> {
  const app = await application(t, at(2), (socket) => void socket.pipe(socket));
  const named = service("web", "10.96.0.1", 80, app.port, [workload("b", at(2), own)]);
  const headless = { ...service("bare", "10.96.0.2", 80, app.port, []).service, vips: [] };
  const unmapped = { ...service("unmapped", "10.96.0.3", 80, 0, []).service };
  const change: SnapshotChange = { workloads: [workload("a", at(1)), workload("c", at(3)), ...named.workloads], services: [named.service, headless, unmapped] };
  const mesh = new TestMesh(t, { change });
  const ports = { ...mesh.parts.config.ports, outbound: 15_001, plaintext: 15_006 };
  await mesh.pod("b", at(2), undefined, ["hbone"], { ports });
  const certificate = await mesh.parts.certificates.fetch(parseSpiffeId("spiffe://cluster.local/ns/default/sa/a"), { signal, priority: "realtime" });
  const raw = tcpConnect({ host: at(2), port: 15_008 });
  await once(raw, "connect");
  const { socket } = await mesh.parts.tls.connect(raw, certificate, [b], { signal });
  const session = http2Connect("http://b", { createConnection: () => socket });
  session.on("error", () => {});
  t.teardown(() => {
    session.destroy();
    raw.destroy();
  });
  return { mesh, port: app.port, session };
}

async function answer(session: ClientHttp2Session, headers: OutgoingHttpHeaders): Promise<{ headers: IncomingHttpHeaders; ended: boolean }> {
  const stream = session.request(headers, { endStream: false });
  stream.on("error", () => {});
  const [received, flags] = await once(stream, "response");
  stream.close(constants.NGHTTP2_CANCEL);
  return { headers: received, ended: (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0 };
}

interface Case {
  readonly what: string;
  readonly status: number;
  readonly authority: (port: number) => string;
  readonly method?: string;
  readonly own?: Partial<Workload>;
  readonly change?: (port: number) => SnapshotChange;
}

const cases: readonly Case[] = [
  { what: "the pod's own address and a port that answers", status: 200, authority: (port) => `${at(2)}:${port}` },
  { what: "a service that the pod is an endpoint of", status: 200, authority: () => "web.default.svc.cluster.local:80" },
  { what: "another method than CONNECT", status: 400, method: "GET", authority: (port) => `${at(2)}:${port}` },
  { what: "an authority without a port", status: 400, authority: () => at(2) },
  { what: "an authority that is nothing", status: 400, authority: () => "300.1.2.3:80" },
  { what: "the address of another pod", status: 400, authority: () => `${at(3)}:80` },
  { what: "an address of nobody", status: 400, authority: () => "10.1.2.3:80" },
  {
    what: "a policy that denies",
    status: 401,
    authority: (port) => `${at(2)}:${port}`,
    change: (port) => ({ policies: [policy("deny", { destinationPorts: [port] })] }),
  },
  {
    what: "policies that allow others only",
    status: 401,
    authority: (port) => `${at(2)}:${port}`,
    change: () => ({ policies: [policy("allow", { destinationPorts: [1] })] }),
  },
  {
    what: "a policy that the pod names and nobody knows",
    status: 401,
    authority: (port) => `${at(2)}:${port}`,
    change: () => ({ workloads: [workload("b", at(2), { authorizationPolicies: ["default/absent" as never] })] }),
  },
  {
    what: "a pod that the mesh has forgotten",
    status: 503,
    authority: (port) => `${at(2)}:${port}`,
    change: () => ({ removedWorkloads: [workload("b", at(2)).uid] }),
  },
  { what: "a hostname of no service", status: 503, authority: () => "nobody.default.svc.cluster.local:80" },
  { what: "a port that the service does not have", status: 503, authority: () => "web.default.svc.cluster.local:81" },
  { what: "a port that leads to no port of the pod", status: 503, authority: () => "unmapped.default.svc.cluster.local:80" },
  { what: "a port of the tunnel itself", status: 503, authority: () => `${at(2)}:15001` },
  { what: "the port of plaintext", status: 503, authority: () => `${at(2)}:15006` },
  { what: "the port of tunnels", status: 503, authority: () => `${at(2)}:15008` },
  {
    what: "a service without an address, where the application tunnel must name one",
    status: 503,
    authority: () => "bare.default.svc.cluster.local:80",
    own: { applicationTunnel: { protocol: "proxy", port: undefined } },
  },
  { what: "an application that is not there", status: 503, authority: () => `${at(2)}:1` },
];

for (const { what, status, authority, method = "CONNECT", own = {}, change } of cases) {
  test.serial(`${status}: ${what}`, async (t) => {
    const { mesh, port, session } = await start(t, own);
    if (change !== undefined) mesh.mesh.apply(change(port));
    const request = method === "CONNECT" ? {} : { ":path": "/", ":scheme": "http" };
    const { headers, ended } = await answer(session, { ":method": method, ":authority": authority(port), ...request });
    t.is(Number(headers[":status"]), status);
    t.is(ended, status !== 200, "a refusal is headers only");
    t.is(headers["baggage"] !== undefined, status === 200, "only who is reached says who it is");
    if (status === 400) await eventually(t, () => mesh.accessLines().some((line) => line.includes("\twarn\taccess\tconnection failed\tsrc.addr=")));
  });
}

test.serial("401: policies that cannot be asked, for a stream that is known in all else", async (t) => {
  const { mesh, port, session } = await start(t);
  const decide = mesh.mesh.decide.bind(mesh.mesh);
  const withoutPolicies = (snapshot: Snapshot): Snapshot =>
    new Proxy(snapshot, {
      get(target, name) {
        if (name === "policiesFor") throw new MeshError("ZTUNNEL_MESH_UNANSWERED", "the mesh was not heard of");
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  Object.assign(mesh.mesh, {
    decide: <T>(decision: (snapshot: Snapshot) => T, options: { signal: AbortSignal }) => decide((snapshot) => decision(withoutPolicies(snapshot)), options),
  });
  const { headers, ended } = await answer(session, { ":method": "CONNECT", ":authority": `${at(2)}:${port}` });
  t.is(Number(headers[":status"]), 401);
  t.true(ended);
  t.regex(mesh.accessLines().join(""), /connection complete.*direction="inbound".*error="the mesh was not heard of"/);
});
