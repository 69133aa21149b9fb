import { once } from "node:events";
import { linuxPodNetwork, selfTest } from "@fairway/linux";
import { type IpAddress, parseIp } from "@fairway/model";
import test, { type ExecutionContext } from "ava";
import type { DnsConfig } from "./config.ts";
import { DnsFrames, dnsFrame } from "./dns-frames.ts";
import { addressCount, codeOf, question, recordOf, response, typeNumbers } from "./test-dns.ts";
import { service, TestMesh, workload } from "./test-mesh.ts";
import { skippedWithoutNamespaces, type TestPod, twoPods } from "./test-pods.ts";

const dnsPort = 53;
const mark = 1337;
const signal = new AbortController().signal;

test.before(async () => {
  await selfTest().catch(() => {});
});

function networkOf(t: ExecutionContext, pod: TestPod): ReturnType<typeof linuxPodNetwork> {
  const network = linuxPodNetwork(pod.open());
  t.teardown(async () => {
    await network[Symbol.asyncDispose]();
    network.namespace?.[Symbol.dispose]();
  });
  return network;
}

/** An application of the pod asks `host`, and takes an answer from there only. */
async function ask(t: ExecutionContext, pod: TestPod, host: string, message: Uint8Array): Promise<Buffer> {
  const socket = await networkOf(t, pod).datagrams({ host: host.includes(":") ? "::" : "0.0.0.0", port: 0 });
  t.teardown(() => socket.close());
  socket.connect(dnsPort, host);
  await once(socket, "connect");
  const answered = once(socket, "message", { signal: AbortSignal.timeout(60_000) });
  socket.send(message);
  const [answer]: unknown[] = await answered;
  return Buffer.isBuffer(answer) ? answer : Buffer.alloc(0);
}

/** Answers every question with one address, and remembers who asked. */
async function resolverIn(t: ExecutionContext, pod: TestPod): Promise<{ askedBy: string[] }> {
  const askedBy: string[] = [];
  const socket = await networkOf(t, pod).datagrams({ host: "::", port: dnsPort });
  t.teardown(() => socket.close());
  socket.on("message", (message, from) => {
    askedBy.push(from.address.replace(/^::ffff:/, ""));
    socket.send(response(message, { records: [recordOf(typeNumbers.a, Buffer.from([192, 0, 2, 9]))] }), from.port, from.address);
  });
  return { askedBy };
}

function capturedDns(upstream: IpAddress): DnsConfig {
  return {
    listen: [
      { host: "127.0.0.1", port: 15_053 },
      { host: "::1", port: 15_053 },
    ],
    clusterDomain: "cluster.local",
    searchDomains: undefined,
    preferredNamespace: undefined,
    upstreams: [{ ip: upstream, port: dnsPort }],
    ipv6: true,
  };
}

for (const family of ["ip", "ip6"] as const) {
  test.serial(
    `in a real pod (${family}), questions to any resolver are captured and answered in its name; ztunnel's own go out from the pod's address`,
    async (t) => {
      if (skippedWithoutNamespaces(t)) return;
      const { a, b } = twoPods(t, { dns: true });
      const { askedBy } = await resolverIn(t, b);
      const api = service("api", "10.0.0.1", 80, 80, []).service;
      const mesh = new TestMesh(t, { change: { workloads: [workload("a", a.ip)], services: [api] } });
      const network = linuxPodNetwork(a.open());
      await mesh.podIn(network, "a", { mark, reusePort: true, dns: capturedDns(parseIp(b[family])) }, ["dns"]);

      const own = await ask(t, a, b[family], question("api.default"));
      t.is(addressCount(own), 1);
      t.deepEqual(own.subarray(-4), Buffer.from([10, 0, 0, 1]));
      t.deepEqual(askedBy, [], "the resolver was not asked");

      const foreign = await ask(t, a, b[family], question("www.example.com"));
      t.deepEqual(foreign.subarray(-4), Buffer.from([192, 0, 2, 9]));
      t.deepEqual(askedBy, [a[family]], "once, and by the pod");

      const nobody = family === "ip" ? "10.98.0.77" : "fd00:98::77";
      t.is(codeOf(await ask(t, a, nobody, question("api.default"))), 0, "whomever the pod asks");

      const { socket } = await networkOf(t, a).dial({ host: nobody, port: dnsPort, mark: 0, timeoutMs: 5_000, signal });
      t.teardown(() => socket.destroy());
      const frames = new DnsFrames();
      socket.write(dnsFrame(question("api.default")));
      const [bytes]: unknown[] = await once(socket.resume(), "data");
      frames.feed(Buffer.isBuffer(bytes) ? bytes : Buffer.alloc(0));
      t.is(addressCount(frames.next() ?? Buffer.alloc(12)), 1, "and over TCP");
    },
  );
}

test.serial("a socket that is used for many questions gets all answers, its own and others in turn", async (t) => {
  if (skippedWithoutNamespaces(t)) return;
  const { a, b } = twoPods(t, { dns: true });
  await resolverIn(t, b);
  const api = service("api", "10.0.0.1", 80, 80, []).service;
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", a.ip)], services: [api] } });
  await mesh.podIn(linuxPodNetwork(a.open()), "a", { mark, reusePort: true, dns: capturedDns(parseIp(b.ip)) }, ["dns"]);
  const socket = await networkOf(t, a).datagrams({ host: "0.0.0.0", port: 0 });
  t.teardown(() => socket.close());
  socket.connect(dnsPort, b.ip);
  await once(socket, "connect");
  for (let id = 1; id <= 20; id += 1) {
    const answered = once(socket, "message", { signal: AbortSignal.timeout(60_000) });
    socket.send(question(id % 2 === 0 ? "api.default" : "www.example.com", typeNumbers.a, id));
    const [answer]: unknown[] = await answered;
    t.is(Buffer.isBuffer(answer) ? answer.readUInt16BE() : -1, id);
  }
});

test.serial("a pod without IPv6 is served on IPv4 alone", async (t) => {
  if (skippedWithoutNamespaces(t)) return;
  const { a, b } = twoPods(t, { dns: true });
  a.run("sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=1");
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", a.ip)], services: [service("api", "10.0.0.1", 80, 80, []).service] } });
  await mesh.podIn(linuxPodNetwork(a.open()), "a", { mark, reusePort: true, dns: capturedDns(parseIp(b.ip)) }, ["dns"]);
  t.is(addressCount(await ask(t, a, b.ip, question("api.default"))), 1);
});
