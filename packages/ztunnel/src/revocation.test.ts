/** Revoked peers: turned away at the handshake, and cut off when the lists change, in both directions (ztunnel contract 1.3). */
import { once } from "node:events";
import type { Socket } from "node:net";
import { parseSpiffeId } from "@fairway/model";
import { createMeshTls, parseRevocationLists } from "@fairway/pki";
import { systemClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { Revocation } from "./revocation.ts";
import { application, client, eventually, loopbackAddresses, TestMesh, workload } from "./test-mesh.ts";
import { skippedWithoutOpenssl, TestRevocation } from "./test-revocation.ts";

const at = loopbackAddresses();
const signal = new AbortController().signal;

interface Scene {
  readonly mesh: TestMesh;
  readonly ca: TestRevocation;
  readonly revocation: Revocation;
  /** A connection of a client of `a` or `c` to `b`, that was answered. */
  readonly connected: (from: "a" | "c") => Promise<Socket>;
  readonly serialOf: (name: string) => Promise<string>;
}

/** `a` and `c` call `b`. */
async function scene(t: ExecutionContext): Promise<Scene> {
  const ca = new TestRevocation(t);
  const app = await application(t, at(2), (socket) => void socket.pipe(socket));
  const mesh = new TestMesh(t, { authority: ca.authority, change: { workloads: [workload("a", at(1)), workload("b", at(2)), workload("c", at(3))] } });
  const revocation = new Revocation({ lists: [], metrics: mesh.parts.metrics });
  Object.assign(mesh.parts, { revocation, tls: createMeshTls({ clock: systemClock, isRevoked: revocation.isRevoked }) });
  await mesh.pod("b", at(2));
  const callers = {
    a: await mesh.pod("a", at(1), () => ({ ip: at(2), port: app.port })),
    c: await mesh.pod("c", at(3), () => ({ ip: at(2), port: app.port })),
  };
  const host = { a: at(1), c: at(3) };
  return {
    mesh,
    ca,
    revocation,
    connected: async (from) => {
      const socket = await client(t, host[from], callers[from].port("outbound") ?? 0);
      socket.write("x");
      await once(socket, "data");
      return socket;
    },
    serialOf: async (name) =>
      (await mesh.parts.certificates.fetch(parseSpiffeId(`spiffe://cluster.local/ns/default/sa/${name}`), { signal, priority: "realtime" })).serialNumber,
  };
}

const lists = (...pem: readonly string[]): ReturnType<typeof parseRevocationLists> => parseRevocationLists(Buffer.from(pem.join("")));
const ended = (mesh: TestMesh, direction: string): string[] =>
  mesh.accessLines().filter((line) => line.includes("connection complete") && line.includes(`direction="${direction}"`));
const reason = /error="connection closed: peer certificate revoked by CRL"/;
const failed = (reporter: string): RegExp => new RegExp(`istio_tcp_connections_failed_total\\{reporter="${reporter}",.*response_flags="CERT_REVOKED"`);

test.serial("a server that is revoked while it is spoken with is cut off by its clients", async (t) => {
  if (skippedWithoutOpenssl(t)) return;
  const { mesh, ca, revocation, connected, serialOf } = await scene(t);
  const socket = await connected("a");
  t.is(revocation.size, 2, "each end follows the other");
  const closed = once(socket, "close");
  socket.once("end", () => socket.end());
  revocation.replace(lists(ca.ofSigner(await serialOf("b"))));
  await closed;
  await eventually(t, () => ended(mesh, "outbound").length === 1 && revocation.size === 0);
  t.regex(ended(mesh, "outbound")[0] ?? "", reason);
  const metrics = await mesh.registry.metrics();
  t.regex(metrics, failed("source"));
  t.regex(metrics, /istio_crl_policy_rejections_total\{reporter="source"\} 1/);
  t.regex(metrics, /istio_crl_policy_rejections_total\{reporter="destination"\} 0/);
  t.regex(metrics, /istio_crl_untracked_connections_total\{reporter="source"\} 0/);
});

test.serial("a client that is revoked is cut off by the server, and nobody else is", async (t) => {
  if (skippedWithoutOpenssl(t)) return;
  const { mesh, ca, revocation, connected, serialOf } = await scene(t);
  const [revoked, also, other] = await Promise.all([connected("a"), connected("a"), connected("c")]);
  const closed = [revoked, also].map((socket) => {
    socket.once("end", () => socket.end());
    return once(socket, "close");
  });
  revocation.replace(lists(ca.ofSigner(await serialOf("a"))));
  await Promise.all(closed);
  await eventually(t, () => ended(mesh, "inbound").length === 2);
  for (const line of ended(mesh, "inbound")) t.regex(line, reason);
  t.regex(await mesh.registry.metrics(), failed("destination"));
  t.regex(await mesh.registry.metrics(), /istio_crl_policy_rejections_total\{reporter="destination"\} 1/, "one tunnel");
  other.write("still here");
  t.is(String((await once(other, "data"))[0]), "still here");
});

test.serial("who is revoked is turned away at the handshake: a server by its client, a client by its server", async (t) => {
  if (skippedWithoutOpenssl(t)) return;
  const { mesh, ca, revocation, connected, serialOf } = await scene(t);
  revocation.replace(lists(ca.ofSigner(await serialOf("b"))));
  await t.throwsAsync(connected("a"), { code: "ECONNRESET" });
  t.regex(ended(mesh, "outbound")[0] ?? "", /was revoked/);
  revocation.replace(lists(ca.ofSigner(await serialOf("c"))));
  await t.throwsAsync(connected("c"), { code: "ECONNRESET" });
  await eventually(t, () => mesh.accessLines().some((line) => line.includes("connection failed") && line.includes("was revoked")));
  const metrics = await mesh.registry.metrics();
  t.regex(metrics, failed("source"));
  t.regex(metrics, /istio_crl_policy_rejections_total\{reporter="destination"\} [1-9]/);
  await connected("a");
});

test.serial("a revoked signer takes all that it signed with it; lists that say nothing new end nothing", async (t) => {
  if (skippedWithoutOpenssl(t)) return;
  const { mesh, ca, revocation, connected } = await scene(t);
  const socket = await connected("a");
  revocation.replace(lists(ca.ofSigner("01"), ca.ofRoot("02")));
  socket.write("y");
  await once(socket, "data");
  const closed = once(socket, "close");
  socket.once("end", () => socket.end());
  revocation.replace(lists(ca.ofRoot(ca.signerSerial)));
  await closed;
  await eventually(t, () => ended(mesh, "inbound").length === 1 && ended(mesh, "outbound").length === 1);
  t.regex(ended(mesh, "inbound")[0] ?? "", reason);
  t.regex(ended(mesh, "outbound")[0] ?? "", reason);
});
