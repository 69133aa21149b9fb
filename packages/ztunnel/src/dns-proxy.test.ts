import { createSocket } from "node:dgram";
import { Resolver } from "node:dns/promises";
import { once } from "node:events";
import { parseIp, type SnapshotChange } from "@fairway/model";
import { ManualClock } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import type { DnsConfig } from "./config.ts";
import { maxForwardedQuestions } from "./dns-responder.ts";
import type { PodProxy } from "./pod-proxy.ts";
import { type Asked, addressCount, askUdp, codeOf, DnsClient, dnsConfig, question, recordOf, resolver, response, typeNumbers } from "./test-dns.ts";
import { eventually, loopbackAddresses, service, TestMesh, type TestMeshOptions, workload } from "./test-mesh.ts";

const at = loopbackAddresses();
const upstreamIp = at(53);
const api = service("api", "10.0.0.1", 80, 8_080, []);
const dual = { ...api.service, hostname: "dual.default.svc.cluster.local", vips: [...api.service.vips, { ...nth(api.service.vips), ip: parseIp("fd00::1") }] };
const pods: SnapshotChange = { workloads: [workload("a", at(1))], services: [api.service, dual] };

function nth<T>(items: readonly T[]): T {
  const [first] = items;
  if (first === undefined) throw new Error("nothing there");
  return first;
}

interface Served {
  readonly mesh: TestMesh;
  readonly proxy: PodProxy;
  readonly port: number;
  readonly ask: (message: Uint8Array) => Promise<Buffer>;
}

async function served(t: ExecutionContext, config: DnsConfig, options: Partial<TestMeshOptions> = {}): Promise<Served> {
  const mesh = new TestMesh(t, { change: pods, ...options });
  const proxy = await mesh.pod("a", at(1), undefined, ["dns"], { dns: config });
  const port = proxy.port("dns") ?? 0;
  return { mesh, proxy, port, ask: (message) => askUdp(t, at(1), port, message) };
}

/** The resolver of a pod: the one that Node has inside, which is not ours. */
function podResolver(port: number): Resolver {
  const client = new Resolver({ tries: 1, timeout: 20_000 });
  client.setServers([`${at(1)}:${port}`]);
  return client;
}

test.serial("the resolver of a pod finds services of the mesh by A and AAAA, and learns what there is not", async (t) => {
  const { port, mesh } = await served(t, dnsConfig(at(1), []));
  const client = podResolver(port);
  t.deepEqual(await client.resolve4("api.default.svc.cluster.local", { ttl: true }), [{ address: "10.0.0.1", ttl: 30 }]);
  t.deepEqual(await client.resolve4("API.default"), ["10.0.0.1"]);
  t.deepEqual(await client.resolve6("dual.default"), ["fd00::1"]);
  await t.throwsAsync(client.resolve6("api.default"), { code: "ENODATA" });
  t.deepEqual(await client.resolve4("api.default.default.svc.cluster.local"), ["10.0.0.1"], "through the alias that a search domain needs");
  const text = await mesh.registry.metrics();
  t.regex(text, /istio_dns_requests_total\{request_query_type="a",request_protocol="udp",source_canonical_service="a",source_canonical_revision="v1"\} 3\n/);
  t.regex(text, /istio_dns_requests_total\{request_query_type="aaaa",.*\} 2\n/);
  t.notRegex(text, /istio_dns_upstream_requests_total\{/);
  const line = mesh.lines.find((written) => written.split("\t")[2] === "dns");
  t.regex(
    line ?? "",
    /\tdns\tdns request\tsrc.workload="a" src.namespace="default" query="a" domain="api.default.svc.cluster.local" result="success" endpoints=1/,
  );
});

test.serial("IPv6 addresses are not given out where IPv6 is switched off, and the name is still ours", async (t) => {
  const { port } = await served(t, dnsConfig(at(1), [], { ipv6: false }));
  await t.throwsAsync(podResolver(port).resolve6("dual.default"), { code: "ENODATA" });
});

test.serial("what is not the mesh's passes as it is: every type, every record, the resolver's code", async (t) => {
  const asked: Asked[] = [];
  const opaque = Buffer.from([1, 2, 3, 0xc0, 0xff]);
  const upstream = await resolver(t, upstreamIp, (query) => {
    asked.push(query);
    const type = query.message.readUInt16BE(query.message.length - 4);
    query.reply(response(query.message, type === typeNumbers.a ? { code: 3 } : { records: [recordOf(type, opaque)] }));
  });
  const { ask, port, mesh } = await served(t, dnsConfig(at(1), [upstream]));
  const question1 = question("api.default.svc.cluster.local", typeNumbers.unheardOf);
  const answer = await ask(question1);
  t.deepEqual(answer, response(question1, { records: [recordOf(typeNumbers.unheardOf, opaque)], flags: 0x8180 }), "only the claim to authority is gone");
  t.deepEqual(nth(asked).message.subarray(2), question1.subarray(2), "the question is not rewritten");
  await t.throwsAsync(podResolver(port).resolve4("nobody.example"), { code: "ENOTFOUND" });
  const tcp = new DnsClient(t, at(1), port);
  tcp.send(question("x.example", typeNumbers.txt));
  t.is(addressCount(nth(await tcp.answers(1))), 1);
  t.is(asked.at(-1)?.protocol, "tcp", "TCP goes on over TCP");
  const text = await mesh.registry.metrics();
  t.regex(text, /istio_dns_upstream_requests_total\{request_query_type="unknown",request_protocol="udp",.*\} 1\n/);
  t.regex(text, /istio_dns_upstream_request_duration_seconds_count\{request_query_type="txt",request_protocol="tcp",.*\} 1\n/);
  t.notRegex(text, /istio_dns_upstream_failures_total\{/);
});

test.serial("each question goes out under a number and from a port of its own", async (t) => {
  const asked: Asked[] = [];
  const upstream = await resolver(t, upstreamIp, (query) => {
    asked.push(query);
    query.reply(response(query.message, {}));
  });
  const { ask } = await served(t, dnsConfig(at(1), [upstream]));
  for (let round = 0; round < 20; round += 1) t.is((await ask(question("x.example"))).readUInt16BE(), 0x2a2a);
  t.true(new Set(asked.map(({ message }) => message.readUInt16BE())).size > 15);
  t.true(new Set(asked.map(({ port }) => port)).size > 10);
});

test.serial("answers with another number or another question are not believed, and the right one after them is", async (t) => {
  const right = recordOf(typeNumbers.a, Buffer.from([192, 0, 2, 1]));
  const wrong = recordOf(typeNumbers.a, Buffer.from([6, 6, 6, 6]));
  const upstream = await resolver(t, upstreamIp, ({ message, reply }) => {
    for (let guess = 1; guess <= 5; guess += 1) {
      const forged = response(message, { records: [wrong] });
      forged.writeUInt16BE((message.readUInt16BE() + guess) & 0xffff);
      reply(forged);
    }
    const other = response(question("y.example"), { records: [wrong] });
    other.writeUInt16BE(message.readUInt16BE());
    reply(other);
    reply(message);
    reply(response(message, { records: [right] }));
  });
  const { ask } = await served(t, dnsConfig(at(1), [upstream]));
  t.deepEqual((await ask(question("x.example"))).subarray(-4), Buffer.from([192, 0, 2, 1]));
});

test.serial("too many guesses end the try, and the next one has another number and port", async (t) => {
  const asked: Asked[] = [];
  const upstream = await resolver(t, upstreamIp, (query) => {
    asked.push(query);
    if (asked.length > 1) query.reply(response(query.message, {}));
    else for (let guess = 0; guess < 16; guess += 1) query.reply(Buffer.from("nonsense"));
  });
  const { ask } = await served(t, dnsConfig(at(1), [upstream]));
  t.is(codeOf(await ask(question("x.example"))), 0);
  t.is(asked.length, 2);
  t.not(asked[0]?.port, asked[1]?.port);
});

test.serial("a resolver that is silent is asked once more, the next one instead where there is one, and last for a while", async (t) => {
  const clock = new ManualClock();
  const counts = { silent: 0, talking: 0 };
  const silent = await resolver(t, upstreamIp, () => {
    counts.silent += 1;
  });
  const talking = await resolver(t, at(54), ({ message, reply }) => {
    counts.talking += 1;
    reply(response(message, {}));
  });
  const { ask } = await served(t, dnsConfig(at(1), [silent, talking]), { clock });
  const first = ask(question("x.example"));
  await eventually(t, () => counts.silent === 1);
  t.is(counts.talking, 0);
  await clock.advance(1_500);
  t.is(codeOf(await first), 0);
  t.is(codeOf(await ask(question("y.example"))), 0);
  t.deepEqual(counts, { silent: 1, talking: 2 });
});

test.serial("resolvers that never answer are a failure after five seconds, and one that refuses at once a failure at once", async (t) => {
  const clock = new ManualClock();
  let asked = 0;
  const silent = await resolver(t, upstreamIp, () => {
    asked += 1;
  });
  const { ask, mesh } = await served(t, dnsConfig(at(1), [silent]), { clock });
  const answer = ask(question("x.example"));
  await eventually(t, () => asked === 1);
  await clock.advance(1_500);
  await eventually(t, () => asked === 2);
  await clock.advance(3_500);
  t.is(codeOf(await answer), 2);
  t.regex(await mesh.registry.metrics(), /istio_dns_upstream_failures_total\{request_query_type="a",.*\} 1\n/);

  const nobody = { ip: parseIp(at(55)), port: 1 };
  const refused = await served(t, dnsConfig(at(1), [nobody]), { clock });
  t.is(codeOf(await refused.ask(question("x.example"))), 2);
  const tcp = new DnsClient(t, at(1), refused.port);
  tcp.send(question("x.example"));
  t.is(codeOf(nth(await tcp.answers(1))), 2);
  const none = await served(t, dnsConfig(at(1), []), { clock });
  t.is(codeOf(await none.ask(question("x.example"))), 2, "and so is none at all");
});

test.serial("past the bound of questions that wait for a resolver the answer is a failure at once, and counted", async (t) => {
  const held: Asked[] = [];
  const upstream = await resolver(t, upstreamIp, (query) => held.push(query));
  const { port, ask, mesh } = await served(t, dnsConfig(at(1), [upstream]), { clock: new ManualClock() });
  // Over eight connections: one has no more than 32 of them open.
  const clients = Array.from({ length: maxForwardedQuestions / 32 }, () => new DnsClient(t, at(1), port));
  for (const client of clients) client.send(...Array.from({ length: 32 }, (_, index) => question("x.example", typeNumbers.a, index)));
  await eventually(t, () => held.length === maxForwardedQuestions);
  t.is(codeOf(await ask(question("y.example"))), 2);
  t.is(codeOf(await ask(question("api.default"))), 0, "the mesh's own names need no resolver");
  t.regex(await mesh.registry.metrics(), /fairway_ztunnel_overload_total\{bound="dns-forwarded"\} 1\n/);
  for (const { message, reply } of held) reply(response(message, {}));
  for (const client of clients) t.is((await client.answers(32)).length, 32);
  const after = ask(question("z.example"));
  await eventually(t, () => held.length > maxForwardedQuestions);
  held.at(-1)?.reply(response(held.at(-1)?.message ?? Buffer.alloc(12), {}));
  t.is(codeOf(await after), 0, "and there is room again");
});

test.serial("on one connection questions are answered without waiting for each other, however the bytes are cut", async (t) => {
  const held: Asked[] = [];
  const upstream = await resolver(t, upstreamIp, (query) => held.push(query));
  const { port } = await served(t, dnsConfig(at(1), [upstream]));
  const client = new DnsClient(t, at(1), port);
  client.send(question("slow.example", typeNumbers.a, 1), ...Array.from({ length: 60 }, (_, index) => question("api.default", typeNumbers.a, 100 + index)));
  const first = await client.answers(60);
  t.deepEqual(
    first.map((answer) => Buffer.from(answer).readUInt16BE()),
    Array.from({ length: 60 }, (_, index) => 100 + index),
  );
  await eventually(t, () => held.length === 1);
  nth(held).reply(response(nth(held).message, {}));
  t.is(Buffer.from(nth(await client.answers(1))).readUInt16BE(), 1);
  const bytes = Buffer.concat([Buffer.from([0, question("api.default").length]), question("api.default")]);
  for (const byte of bytes) {
    client.socket.write(Buffer.from([byte]));
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.is(addressCount(nth(await client.answers(1))), 1);
  client.send(question("api.default"));
  client.socket.end();
  t.is((await client.answers(1)).length, 1, "the end of the questions is not the end of the answers");
  await client.closed;
});

test.serial("a connection that asks nothing, or never ends its question, is closed after five seconds", async (t) => {
  const clock = new ManualClock();
  const { port } = await served(t, dnsConfig(at(1), []), { clock });
  const clients = [new DnsClient(t, at(1), port), new DnsClient(t, at(1), port)];
  clients[1]?.socket.write(Buffer.from([0, 30, 1]));
  for (const client of clients) {
    client.send(question("api.default"));
    client.socket.on("end", () => client.socket.end());
  }
  t.is(addressCount(nth((await clients[0]?.answers(1)) ?? [])), 1);
  const closed = Promise.all(clients.map(({ closed }) => closed));
  await clock.advance(4_999);
  t.true(clients.every(({ socket }) => !socket.destroyed));
  await clock.advance(1);
  await closed;
  t.pass();
});

test.serial("an answer too long for a datagram is cut and whole over TCP; a client with EDNS gets what it can take", async (t) => {
  const hostname = "many.default.svc.cluster.local";
  const headless = { ...api.service, hostname, vips: [] };
  const key = service("many", "10.0.0.2", 80, 80, []).service;
  const { workloads } = service(
    key.name,
    "10.0.0.2",
    80,
    80,
    Array.from({ length: 200 }, (_, index) => workload(`many-${index}`, `10.1.0.${index + 1}`)),
  );
  const { ask, port } = await served(t, dnsConfig(at(1), []), { change: { services: [headless], workloads: [workload("a", at(1)), ...workloads] } });
  const cut = await ask(question(hostname));
  t.true(cut.length <= 512);
  t.true((cut.readUInt16BE(2) & 0x0200) !== 0);
  const large = Buffer.concat([question(hostname), Buffer.from([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0])]);
  large.writeUInt16BE(1, 10);
  const whole = await ask(large);
  t.is(addressCount(whole), 200);
  t.is(whole.readUInt16BE(2) & 0x0200, 0);
  const found = await podResolver(port).resolve4(hostname);
  t.is(new Set(found).size, 200, "the resolver of a pod asks again over TCP by itself");
  const again = await podResolver(port).resolve4(hostname);
  t.notDeepEqual(found, again, "in no fixed order");
});

test.serial("nothing that a client sends keeps the next one from its answer", async (t) => {
  const { ask, port, mesh } = await served(t, dnsConfig(at(1), []));
  const garbage = [Buffer.alloc(0), Buffer.alloc(11, 0xff), Buffer.from("GET / HTTP/1.1\r\n\r\n")];
  for (const bytes of garbage) askUdp(t, at(1), port, bytes).catch(() => {});
  t.is(codeOf(await ask(Buffer.alloc(64, 0xff))), 1, "a response is no question");
  t.is(codeOf(await ask(Buffer.concat([question("x.example").subarray(0, 4), Buffer.alloc(8, 0xff)]))), 1);
  const update = question("x.example");
  update.writeUInt16BE(5 << 11, 2);
  t.is(codeOf(await ask(update)), 4);
  const future = Buffer.concat([question("api.default"), Buffer.from([0, 0, 41, 0x10, 0, 0, 7, 0, 0, 0, 0])]);
  future.writeUInt16BE(1, 10);
  const refused = await ask(future);
  t.is(refused.at(-6), 1, "BADVERS, whose upper half is 1");
  const tcp = new DnsClient(t, at(1), port);
  tcp.socket.on("end", () => tcp.socket.end());
  tcp.send(Buffer.alloc(3));
  await tcp.closed;
  t.is(addressCount(await ask(question("api.default"))), 1);
  t.false(mesh.lines.some((line) => line.includes("\terror\t")));
});

test.serial("a datagram that claims to come from the proxy itself is not answered", async (t) => {
  const { port, ask } = await served(t, dnsConfig(at(1), []));
  // The same port at another loopback address is as near to it as a test can come.
  const self = createSocket("udp4");
  t.teardown(() => self.close());
  self.bind(port, at(4));
  await once(self, "listening");
  let answers = 0;
  self.on("message", () => {
    answers += 1;
  });
  self.send(question("api.default"), port, at(1));
  t.is(addressCount(await ask(question("api.default"))), 1);
  t.is(answers, 0);
});

test.serial("a pod that the mesh does not know gets a failure", async (t) => {
  const { ask, mesh } = await served(t, dnsConfig(at(1), []), { change: { services: [api.service] } });
  t.is(codeOf(await ask(question("api.default"))), 2);
  t.true(mesh.lines.some((line) => line.includes('result="failed"') && line.includes("failed to fetch information about local workload")));
});

test.serial("a change of the mesh is in the next answer", async (t) => {
  const { ask, mesh } = await served(t, dnsConfig(at(1), []), { change: { workloads: [workload("a", at(1))] } });
  t.is(codeOf(await ask(question("api.default"))), 2);
  mesh.mesh.apply({ services: [api.service] });
  t.is(addressCount(await ask(question("api.default"))), 1);
});

test.serial("a drain answers what was asked, and then nobody listens", async (t) => {
  const held: Asked[] = [];
  const upstream = await resolver(t, upstreamIp, (query) => held.push(query));
  const { ask, proxy, port } = await served(t, dnsConfig(at(1), [upstream]));
  const idle = new DnsClient(t, at(1), port);
  await once(idle.socket, "connect");
  const waiting = ask(question("x.example"));
  await eventually(t, () => held.length === 1);
  const drained = proxy.drain({ signal: new AbortController().signal });
  idle.socket.on("end", () => idle.socket.end());
  await idle.closed;
  await t.throwsAsync(podResolver(port).resolve4("api.default"), { code: "ECONNREFUSED" }, "nobody shares the port here");
  nth(held).reply(response(nth(held).message, {}));
  t.is(codeOf(await waiting), 0);
  await drained;
  const refused = new DnsClient(t, at(1), port);
  await refused.closed;
});

test.serial("of two that share the ports, everything goes to the other from the moment one drains, however long it waits for its last answer", async (t) => {
  const held: Asked[] = [];
  const upstream = await resolver(t, upstreamIp, (query) => held.push(query));
  const shared = { config: { reusePort: true } };
  const leaving = await served(t, dnsConfig(at(1), [upstream]), shared);
  const waiting = leaving.ask(question("x.example"));
  await eventually(t, () => held.length === 1);
  const staying = new TestMesh(t, { change: pods, ...shared });
  await staying.pod("a", at(1), undefined, ["dns"], { dns: { ...dnsConfig(at(1), []), listen: [{ host: at(1), port: leaving.port }] } });
  const drained = leaving.proxy.drain({ signal: new AbortController().signal });
  for (let turn = 0; turn < 4; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  for (let index = 0; index < 40; index += 1) t.is(addressCount(await leaving.ask(question("api.default"))), 1);
  t.regex(await staying.registry.metrics(), /istio_dns_requests_total\{.*\} 40\n/);
  nth(held).reply(response(nth(held).message, {}));
  t.is(codeOf(await waiting), 0);
  await drained;
});

test.serial("a pod that is no longer served lets go of everything at once", async (t) => {
  let asked = 0;
  const upstream = await resolver(t, upstreamIp, () => {
    asked += 1;
  });
  const { proxy, port, mesh } = await served(t, dnsConfig(at(1), [upstream]));
  const client = new DnsClient(t, at(1), port);
  client.send(question("x.example"));
  askUdp(t, at(1), port, question("x.example")).catch(() => {});
  await eventually(t, () => asked === 2);
  client.socket.on("end", () => client.socket.end());
  await proxy.stop(new Error("gone"));
  await client.closed;
  t.false(mesh.lines.some((line) => line.split("\t")[1] === "error"));
});
