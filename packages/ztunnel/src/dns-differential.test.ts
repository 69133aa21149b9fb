/** The DNS proxy beside a resolver that others wrote (dnsmasq), both asked by a client that others wrote (dig). Either missing is a visible skip. */
import { execFile, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { promisify } from "node:util";
import { networkId, parseIp, type Service, type SocketAddress } from "@fairway/model";
import test, { type ExecutionContext } from "ava";
import { askUdp, DnsClient, dnsConfig, question } from "./test-dns.ts";
import { loopbackAddresses, service, TestMesh, workload } from "./test-mesh.ts";

const at = loopbackAddresses();
const programPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const run = promisify(execFile);
const long = "x".repeat(250);

/** What the mesh knows, as dnsmasq is told it. Wildcards and search domains are ours alone. */
const meshRecords = [
  "--host-record=api.default.svc.cluster.local,10.0.0.1,30",
  "--host-record=dual.default.svc.cluster.local,10.0.0.2,fd00::2,30",
  "--host-record=www.example.com,240.0.0.1,30",
  "--local=/cluster.local/",
  "--local=/example.com/",
];
const foreignRecords = [
  "--host-record=other.test,192.0.2.7,2001:db8::7",
  "--txt-record=text.test,plain words",
  `--txt-record=large.test,${long},${long},${long},${long}`,
  "--mx-host=other.test,mail.test,10",
  "--srv-host=_sip._tcp.other.test,sip.test,5060,1,2",
  "--caa-record=other.test,0,issue,ca.test",
  "--dns-rr=raw.test,65280,01ff00c00c",
  "--local=/test/",
];

function named(hostname: string, ips: readonly string[]): Service {
  const { service: made } = service("x", "10.0.0.9", 80, 80, []);
  return { ...made, name: hostname, hostname, vips: ips.map((ip) => ({ network: networkId(""), ip: parseIp(ip) })) };
}

interface Pair {
  readonly reference: SocketAddress;
  readonly ours: SocketAddress;
}

/** dnsmasq with everything, and our proxy with the mesh and dnsmasq behind it. Undefined where a program is missing. */
async function pair(t: ExecutionContext): Promise<Pair | undefined> {
  for (const program of ["dnsmasq", "dig"]) {
    if (spawnSync(program, ["-v"], { env: { PATH: programPath } }).error === undefined) continue;
    t.log(`SKIPPED (needs ${program}): ${t.title}`);
    t.pass();
    return undefined;
  }
  const [host, port] = [at(60), 20_000 + (process.pid % 20_000)];
  const fixed = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces", "--pid-file=", "--user="];
  const child = spawn("dnsmasq", [...fixed, `--listen-address=${host}`, `--port=${port}`, ...meshRecords, ...foreignRecords], {
    env: { PATH: programPath },
    stdio: "ignore",
  });
  t.teardown(async () => {
    child.kill("SIGKILL");
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  });
  await listening(host, port);
  const reference = { ip: parseIp(host), port };
  const services = [
    named("api.default.svc.cluster.local", ["10.0.0.1"]),
    named("dual.default.svc.cluster.local", ["10.0.0.2", "fd00::2"]),
    named("www.example.com", ["240.0.0.1"]),
  ];
  const mesh = new TestMesh(t, { change: { workloads: [workload("a", at(1))], services } });
  const proxy = await mesh.pod("a", at(1), undefined, ["dns"], { dns: dnsConfig(at(1), [reference]) });
  return { reference, ours: { ip: parseIp(at(1)), port: proxy.port("dns") ?? 0 } };
}

async function listening(host: string, port: number): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    const socket = connect(port, host);
    const open = await new Promise<boolean>((resolve) => socket.once("connect", () => resolve(true)).once("error", () => resolve(false)));
    socket.destroy();
    if (open) return;
    if (attempt > 2_000) throw new Error("dnsmasq does not listen");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** What dig makes of an answer: its code, the flags that clients act on, the answer section in order of its text. */
async function dig({ ip, port }: SocketAddress, ...words: readonly string[]): Promise<{ status: string; truncated: boolean; answers: readonly string[] }> {
  const { stdout } = await run("dig", [`@${ip}`, "-p", String(port), "+tries=1", "+time=20", "+noall", "+comments", "+answer", ...words], {
    env: { PATH: programPath },
  });
  const lines = stdout.split("\n");
  return {
    status: /status: (\w+)/.exec(stdout)?.[1] ?? stdout,
    truncated: / flags: [^;]* tc[ ;]/.test(stdout) || stdout.includes("Truncated, retrying in TCP mode"),
    answers: lines
      .filter((line) => line !== "" && !line.startsWith(";"))
      .map((line) => line.replace(/\s+/g, " "))
      .sort(),
  };
}

test.serial("names of the mesh: the same code and the same records", async (t) => {
  const both = await pair(t);
  if (both === undefined) return;
  for (const name of [
    "api.default.svc.cluster.local",
    "dual.default.svc.cluster.local",
    "www.example.com",
    "API.Default.SVC.cluster.local",
    "nobody.default.svc.cluster.local",
  ]) {
    for (const type of ["A", "AAAA", "TXT"]) {
      for (const how of ["+notcp", "+tcp", "+noedns", "+bufsize=1232", "+dnssec"]) {
        const [expected, got] = await Promise.all([dig(both.reference, how, type, name), dig(both.ours, how, type, name)]);
        t.deepEqual(got, expected, `${how} ${type} ${name}`);
      }
    }
  }
});

test.serial("a search domain that was appended: an alias to the name that was meant", async (t) => {
  const both = await pair(t);
  if (both === undefined) return;
  t.deepEqual((await dig(both.ours, "A", "www.example.com.default.svc.cluster.local")).answers, [
    "www.example.com. 30 IN A 240.0.0.1",
    "www.example.com.default.svc.cluster.local. 30 IN CNAME www.example.com.",
  ]);
});

test.serial("everything else passes byte for byte: every type, over UDP and TCP, with EDNS and without, whole and cut", async (t) => {
  const both = await pair(t);
  if (both === undefined) return;
  const types = [1, 2, 5, 6, 15, 16, 28, 33, 255, 257, 65_280];
  const names = ["other.test", "text.test", "large.test", "_sip._tcp.other.test", "raw.test", "missing.test", "OTHER.test", "api.default.svc.cluster.local"];
  for (const name of names) {
    for (const type of types) {
      if (name.startsWith("api.") && (type === 1 || type === 28)) continue;
      for (const edns of [false, true]) {
        const message = edns ? withExtension(question(name, type)) : question(name, type);
        const what = `${name} ${type} ${edns ? "with" : "without"} EDNS`;
        const [expected, got] = await Promise.all([both.reference, both.ours].map(({ ip, port }) => askUdp(t, ip, port, message)));
        t.deepEqual(got, withoutAuthority(expected), `${what} over UDP`);
        const [wanted, had] = await Promise.all([both.reference, both.ours].map(({ ip, port }) => askTcp(t, ip, port, message)));
        t.deepEqual(had, withoutAuthority(wanted), `${what} over TCP`);
      }
    }
  }
  const cut = await dig(both.ours, "+noedns", "+ignore", "TXT", "large.test");
  t.true(cut.truncated);
  const whole = await dig(both.ours, "+noedns", "TXT", "large.test");
  t.is(whole.answers.length, 1, "dig asks again over TCP by itself");
});

function withExtension(message: Buffer): Buffer {
  const extended = Buffer.concat([message, Buffer.from([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0])]);
  extended.writeUInt16BE(1, 10);
  return extended;
}

/** A relayed answer is not the word of the name's own server. */
function withoutAuthority(message: Buffer = Buffer.alloc(12)): Buffer {
  const copy = Buffer.from(message);
  copy.writeUInt16BE(copy.readUInt16BE(2) & ~0x0400, 2);
  return copy;
}

async function askTcp(t: ExecutionContext, host: string, port: number, message: Buffer): Promise<Buffer> {
  const client = new DnsClient(t, host, port);
  client.send(message);
  const [answer = Buffer.alloc(0)] = await client.answers(1);
  client.socket.destroy();
  return Buffer.from(answer);
}
