import { once } from "node:events";
import { networkId, parseIp } from "@fairway/model";
import test from "ava";
import { application, client, eventually, loopbackAddresses, readAll, service, TestMesh, workload } from "./test-mesh.ts";

const at = loopbackAddresses();
const gateway = (ip: string) => ({ destination: { kind: "address" as const, network: networkId(""), ip: parseIp(ip) }, hbonePort: 15_008 });

test.serial("traffic of a service with a waypoint goes through it, addressed to the service", async (t) => {
  const app = await application(t, at(5), (socket) => void socket.end("waypoint"));
  const { service: web, workloads } = service("web", at(200), app.port, app.port, [workload("b", at(2))]);
  const change = { workloads: [workload("a", at(1)), workload("wp", at(5)), ...workloads], services: [{ ...web, waypoint: gateway(at(5)) }] };
  const mesh = new TestMesh(t, { change });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(200), port: app.port }));
  await mesh.pod("wp", at(5));
  t.is((await readAll((await client(t, at(1), a.port("outbound") ?? 0)).end())).toString(), "waypoint");
  await eventually(t, () => mesh.accessLines().some((line) => line.includes('direction="outbound" bytes')));
  const line = mesh.accessLines().find((one) => one.includes('direction="outbound" bytes')) ?? "";
  t.regex(
    line,
    new RegExp(`dst\\.addr=${at(5)}:15008 dst\\.hbone_addr=${at(200)}:${app.port} dst\\.service="web\\.default\\.svc\\.cluster\\.local" dst\\.workload="wp"`),
  );
});

test.serial("a waypoint of another namespace is asked for a service that only its own namespace sees", async (t) => {
  const app = await application(t, at(5), (socket) => void socket.end("waypoint"));
  const { service: web, workloads } = service("web", at(200), app.port, app.port, [workload("b", at(2))]);
  const hidden = { ...web, visibility: "namespace" as const, waypoint: gateway(at(5)) };
  const stranger = workload("c", at(3), { namespace: "elsewhere" });
  const change = { workloads: [workload("a", at(1)), workload("wp", at(5), { namespace: "infra" }), stranger, ...workloads], services: [hidden] };
  const mesh = new TestMesh(t, { change });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(200), port: app.port }));
  await mesh.pod("wp", at(5));
  t.is((await readAll((await client(t, at(1), a.port("outbound") ?? 0)).end())).toString(), "waypoint");
  await eventually(t, () => mesh.accessLines().some((line) => line.includes('direction="inbound" bytes')));
  const line = mesh.accessLines().find((one) => one.includes('direction="inbound" bytes')) ?? "";
  t.regex(line, new RegExp(`dst\\.addr=${at(5)}:15008 dst\\.hbone_addr=${at(200)}:${app.port}`));
  // To everybody else it is an address of nobody: reached in plaintext, where nobody listens.
  const c = await mesh.pod("c", at(3), () => ({ ip: at(200), port: app.port }));
  await t.throwsAsync(async () => readAll(await client(t, at(3), c.port("outbound") ?? 0)));
});

test.serial("a waypoint that is not there refuses the traffic that needs it", async (t) => {
  const { service: web, workloads } = service("web", at(200), 80, 80, [workload("b", at(2))]);
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), ...workloads], services: [{ ...web, waypoint: gateway(at(6)) }] } });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(200), port: 80 }));
  await t.throwsAsync(async () => readAll(await client(t, at(1), a.port("outbound") ?? 0)), { code: "ECONNRESET" });
  await eventually(t, () => mesh.accessLines().some((line) => line.includes("connection failed") && line.includes('direction="outbound"')));
});

test.serial("an application tunnel with PROXY protocol is told of the client, the target and the identity", async (t) => {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  // Loopback to loopback: the application of the tunnel listens on 127.0.0.1.
  const app = await application(t, "127.0.0.1", (socket) => {
    readAll(socket).then(resolve, () => resolve(Buffer.alloc(0)));
    socket.end("ok");
  });
  const tunnelled = workload("b", at(2), { applicationTunnel: { protocol: "proxy", port: app.port } });
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), tunnelled] } });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: 8_080 }));
  await mesh.pod("b", at(2));
  const socket = await client(t, at(1), a.port("outbound") ?? 0);
  socket.end("payload");
  t.is((await readAll(socket)).toString(), "ok");
  const received = await promise;
  t.is(received.subarray(0, 12).toString("hex"), "0d0a0d0a000d0a515549540a");
  t.is(received.subarray(20, 24).join("."), at(2), "destination address");
  t.is(received.readUInt16BE(26), 8_080, "destination port");
  t.true(received.includes("spiffe://cluster.local/ns/default/sa/a"));
  t.true(received.subarray(-7).equals(Buffer.from("payload")));
});

test.serial("with LOCALHOST_APP_TUNNEL off an application tunnel leads to the pod's own address, and says the same", async (t) => {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  const app = await application(t, at(2), (socket) => {
    readAll(socket).then(resolve, () => resolve(Buffer.alloc(0)));
    socket.end("ok");
  });
  const tunnelled = workload("b", at(2), { applicationTunnel: { protocol: "proxy", port: app.port } });
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), tunnelled] }, config: { localhostAppTunnel: false } });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: 8_080 }));
  await mesh.pod("b", at(2));
  const socket = await client(t, at(1), a.port("outbound") ?? 0);
  socket.end();
  t.is((await readAll(socket)).toString(), "ok");
  const received = await promise;
  t.is(received.subarray(0, 12).toString("hex"), "0d0a0d0a000d0a515549540a");
  t.is(`${received.subarray(20, 24).join(".")}:${received.readUInt16BE(26)}`, `${at(2)}:8080`);
});

test.serial("the ztunnel's own pod answers for itself over HBONE and nothing else", async (t) => {
  const metrics = await application(t, at(4), (socket) => void socket.end("metrics"));
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload("self", at(4))] } });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(4), port: metrics.port }));
  const self = await mesh.pod("self", at(4), undefined, ["hbone"]);
  t.is(self.port("outbound"), undefined);
  t.is((await readAll((await client(t, at(1), a.port("outbound") ?? 0)).end())).toString(), "metrics");
});

test.serial("a tunnel that drains is not used again: new connections get a new one", async (t) => {
  const app = await application(t, at(2), (socket) => void socket.pipe(socket));
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), workload("b", at(2))] } });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(2), port: app.port }));
  const old = await mesh.pod("b", at(2));
  const first = await client(t, at(1), a.port("outbound") ?? 0);
  first.write("x");
  await once(first, "data");
  const drained = old.drain({ signal: new AbortController().signal });
  // It accepts what is there before it closes.
  for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setImmediate(resolve));
  await mesh.pod("b", at(2));
  const second = await client(t, at(1), a.port("outbound") ?? 0);
  second.end("y");
  t.is((await readAll(second)).toString(), "y");
  first.end("z");
  t.is((await readAll(first)).toString(), "z");
  await drained;
});

test.serial("traffic to another network that nobody there can prove to be for is refused with a word, never sent some other way", async (t) => {
  const remote = workload("b", at(2), { network: networkId("far"), addresses: [], networkGateway: gateway(at(7)) });
  const east = workload("east", at(7));
  const { service: web, workloads } = service("web", at(200), 80, 80, [remote]);
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1)), east, ...workloads], services: [web] } });
  const a = await mesh.pod("a", at(1), () => ({ ip: at(200), port: 80 }));
  await t.throwsAsync(async () => readAll(await client(t, at(1), a.port("outbound") ?? 0)), { code: "ECONNRESET" });
  await eventually(t, () => mesh.accessLines().some((line) => line.includes("publishes no identities")));
});
