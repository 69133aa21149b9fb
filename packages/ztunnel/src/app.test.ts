import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostPodNetwork, type SeqpacketConnection, SeqpacketServer } from "@fairway/linux";
import { decodeZdsResponse, encodeZdsRequest } from "@fairway/protocol";
import { createLogger, errorCode, LogFilter, messageOf } from "@fairway/runtime";
import test, { type ExecutionContext } from "ava";
import { realSeams, runZtunnel } from "./app.ts";
import { readConfig } from "./environment.ts";
import { addressCount, askUdp, codeOf, DnsClient, question, typeNumbers } from "./test-dns.ts";
import { application, eventually, loopbackAddresses, readAll } from "./test-mesh.ts";
import { threadHere } from "./test-threads.ts";
import type { SpawnThread } from "./traffic-thread.ts";

const at = loopbackAddresses();
const base = 20_000 + (process.pid % 10_000);
const ports = {
  outbound: base + 1,
  plaintext: base + 6,
  hbone: 15_008,
  socks5: base + 8,
  httpConnect: base + 9,
  admin: base + 2,
  metrics: base + 3,
  readiness: base + 4,
};
const forever = new AbortController().signal;

const mesh = (ip: string): string => `
workloads:
  - {uid: cluster//Pod/default/a, name: a, namespace: default, serviceAccount: a, workloadName: a, workloadIps: ["${ip}"], protocol: HBONE, node: node-1, services: {}}
policies: []
services: []
`;

/** The whole program, with a local mesh, a CA of its own and pods in this process's network. */
class Program {
  readonly lines: string[] = [];
  readonly done: Promise<unknown>;
  readonly #stop = new AbortController();

  constructor(t: ExecutionContext, env: Record<string, string>, destination: () => { ip: string; port: number } | undefined, spawn?: SpawnThread) {
    const config = readConfig({ XDS_ADDRESS: "", FAKE_CA: "true", ISTIO_META_DNS_CAPTURE: "false", IPV6_ENABLED: "false", PACKET_MARK: "0", ...env });
    const logFilter = new LogFilter("info");
    const log = createLogger("ztunnel", { filter: logFilter, write: (line) => void this.lines.push(line) });
    const proxy = { ...config.proxy, ports, listenHost: at(1), keepSource: "never" as const, reusePort: false };
    this.done = runZtunnel({
      config: { ...config, proxy },
      log,
      logFilter,
      stop: this.#stop.signal,
      write: (text, written) => {
        this.lines.push(...text.split(/(?<=\n)/));
        written();
      },
      seams: { ...realSeams, selfTest: async () => {}, spawnThread: spawn ?? threadHere(() => hostPodNetwork({ originalDestination: destination })) },
    }).catch((thrown: unknown) => thrown);
    t.teardown(async () => {
      this.stop();
      await this.done;
    });
  }

  /** What the test waits for, unless the program ended before; then that is the failure. */
  async meanwhile<T>(awaited: Promise<T>): Promise<T> {
    const ended = this.done.then((reason) => {
      throw new Error(`the program ended: ${messageOf(reason)}\n${this.lines.join("")}`);
    });
    return Promise.race([awaited, ended]);
  }

  stop(): void {
    this.#stop.abort(new Error("stopped by the test"));
  }
}

async function get(port: number, path: string, method = "GET"): Promise<{ status: number; body: string }> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { method });
  return { status: response.status, body: await response.text() };
}

/** Asks again until somebody listens. */
async function listening<T>(ask: () => Promise<T>): Promise<T> {
  for (let turn = 0; turn < 2_000; turn++) {
    const answer = await ask().catch(() => undefined);
    if (answer !== undefined) return answer;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return ask();
}

async function agentServer(t: ExecutionContext): Promise<{ path: string; connection: Promise<SeqpacketConnection> }> {
  const directory = mkdtempSync(join(tmpdir(), "fwztunnel-"));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, "zds.sock");
  const { promise, resolve } = Promise.withResolvers<SeqpacketConnection>();
  const server = await SeqpacketServer.listen(path, resolve);
  t.teardown(() => server.close());
  return { path, connection: promise };
}

test.serial("the program enrols a pod from the agent, carries its bytes, tells about them, and drains", async (t) => {
  const app = await application(t, at(1), (socket) => void socket.pipe(socket));
  const agent = await agentServer(t);
  const program = new Program(t, { LOCAL_XDS: mesh(at(1)), INPOD_UDS: agent.path, NODE_NAME: "node-1", TERMINATION_GRACE_PERIOD_SECONDS: "30" }, () => ({
    ip: at(1),
    port: app.port,
  }));
  const connection = await program.meanwhile(agent.connection);
  await connection.receive({ signal: forever });
  t.is((await get(ports.readiness, "/healthz/ready")).status, 500);
  const fd = openSync("/proc/self/ns/net", "r");
  await connection.send(encodeZdsRequest({ kind: "add", uid: "pod-a", workload: { namespace: "default", name: "a", serviceAccount: "a" } }), [fd], {
    signal: forever,
  });
  closeSync(fd);
  t.is(decodeZdsResponse((await connection.receive({ signal: forever }))?.bytes ?? new Uint8Array()).error, "");
  await connection.send(encodeZdsRequest({ kind: "snapshot-sent" }), [], { signal: forever });
  await connection.receive({ signal: forever });
  t.deepEqual(await get(ports.readiness, "/healthz/ready"), { status: 200, body: "ready\n" });

  await get(ports.admin, "/logging?level=access=debug", "POST");
  const socket = connect({ host: at(1), port: ports.outbound, allowHalfOpen: true });
  t.teardown(() => socket.destroy());
  socket.write("to myself through my own tunnel");
  await once(socket, "data");
  await eventually(t, () => program.lines.filter((line) => line.includes("debug\taccess\tconnection opened")).length === 2);

  const dump = JSON.parse((await get(ports.admin, "/config_dump")).body);
  t.is(dump.workloads[0].protocol, "HBONE");
  t.deepEqual([dump.staticConfig.workloads[0].name, dump.staticConfig.workloads[0].services], ["a", {}], "what LOCAL_XDS says");
  t.is(dump.workloadState["pod-a"].state, "Up");
  t.is(dump.workloadState["pod-a"].connections.outbound[0].protocol, "HBONE");
  t.is(dump.workloadState["pod-a"].connections.inbound[0].actualDst, `${at(1)}:${app.port}`);
  t.is(dump.certificates[0].identity, "spiffe://cluster.local/ns/default/sa/a");
  t.is(dump.certificates[0].state, "Available");
  t.regex(dump.certificates[0].certChain[0].serialNumber, /^\d+$/);
  t.notRegex(JSON.stringify(dump), /PRIVATE KEY|UFJJVkFURSBLRVk/);

  const metrics = (await get(ports.metrics, "/stats/prometheus")).body;
  t.regex(metrics, /istio_tcp_connections_opened_total\{reporter="source",source_workload="a"/);
  for (const reporter of ["source", "destination"]) t.true(metrics.includes(`istio_tcp_sockets_open{reporter="${reporter}"} 1\n`), reporter);
  t.regex(metrics, /workload_manager_active_proxy_count 1\n/);
  t.regex(metrics, /istio_build\{component="ztunnel",tag="unknown"\} 1\n/);
  t.regex(metrics, /# EOF\n$/);

  program.stop();
  await eventually(t, () => program.lines.some((line) => line.includes("draining")));
  const drained = JSON.parse((await get(ports.admin, "/config_dump")).body);
  t.is(drained.drain.connections, 2, "both ends of the one connection");
  t.is(Date.parse(drained.drain.deadline) - Date.parse(drained.drain.startedAt), 25_000);
  t.is(drained.workloadState["pod-a"].connections.outbound.length, 1);
  socket.end();
  t.is((await readAll(socket)).toString(), "");
  t.is(await program.done, undefined);
  t.false(program.lines.some((line) => line.includes("by force")));
});

test.serial("administration answers as the reference does, and quits on request", async (t) => {
  const agent = await agentServer(t);
  const program = new Program(t, { LOCAL_XDS: mesh(at(1)), INPOD_UDS: agent.path }, () => undefined);
  await program.meanwhile(agent.connection);
  t.is((await get(ports.admin, "/")).status, 200);
  t.is((await get(ports.admin, "/nothing")).status, 404);
  t.is((await get(ports.admin, "/logging")).status, 405);
  t.deepEqual(await get(ports.admin, "/logging", "POST"), { status: 200, body: "current log level is info\n" });
  t.is((await get(ports.admin, "/logging?level=access=debug,warn", "POST")).body, "current log level is warn,access=debug\n");
  t.is((await get(ports.admin, "/logging?level=access", "POST")).status, 400);
  t.is((await get(ports.admin, "/logging?level=&reset=", "POST")).body, "current log level is info\n");
  t.is((await get(ports.admin, "/debug/pprof/profile?seconds=0")).status, 400);
  t.is((await get(ports.admin, "/debug/pprof/heap")).status, 500);
  t.is((await get(ports.admin, "/debug/pprof/heap/profiling?activate=true", "POST")).status, 200);
  t.true("head" in JSON.parse((await get(ports.admin, "/debug/pprof/heap")).body));
  t.is((await get(ports.admin, "/debug/pprof/heap/profiling?activate=false", "POST")).status, 200);
  t.is((await get(ports.admin, "/debug/pprof/heap?thread=2")).status, 400);
  t.is((await get(ports.admin, "/debug/pprof/heap/profiling")).status, 400);
  // Each comes over a connection of its own: whichever of the two for the main thread arrives first is served.
  const [one, other, thread] = await Promise.all(["", "", "&thread=0"].map((query) => get(ports.admin, `/debug/pprof/profile?seconds=1${query}`)));
  t.deepEqual([one?.status, other?.status].sort(), [200, 409]);
  for (const profile of [one?.status === 200 ? one : other, thread]) t.true("nodes" in JSON.parse(profile?.body ?? ""));
  t.is((await get(ports.readiness, "/healthz/ready", "POST")).status, 405);
  for (const port of [ports.metrics, ports.readiness]) {
    const socket = connect({ host: "127.0.0.1", port });
    socket.on("error", () => {}).write("no HTTP at all\r\n\r\n");
    const [answer] = await once(socket, "data");
    t.regex(String(answer), /^HTTP\/1\.1 400 /);
    socket.destroy();
  }
  t.is((await get(ports.admin, "/quitquitquit")).status, 405);
  t.deepEqual(await get(ports.admin, "/quitquitquit", "POST"), { status: 200, body: "shutdown now\n" });
  t.is(await program.done, undefined);
});

test.serial("an administration port that is taken ends the start", async (t) => {
  for (const port of [ports.admin, ports.metrics, ports.readiness]) {
    const taken = await application(t, "0.0.0.0", (socket) => void socket.destroy(), port);
    const program = new Program(t, { LOCAL_XDS: mesh(at(1)), INPOD_UDS: "/nonexistent/zds.sock" }, () => undefined);
    t.is(errorCode(await program.done), "RUNTIME_LISTEN_FAILED");
    taken.server.close();
    await once(taken.server, "close");
  }
});

test.serial("a thread that dies ends the program with a code", async (t) => {
  const agent = await agentServer(t);
  const { promise: died, resolve: die } = Promise.withResolvers<Error>();
  const here = threadHere(() => hostPodNetwork({}));
  const program = new Program(
    t,
    { LOCAL_XDS: mesh(at(1)), INPOD_UDS: agent.path },
    () => undefined,
    (settings) => ({ ...here(settings), died }),
  );
  await program.meanwhile(agent.connection);
  die(new Error("a bug"));
  const ended = await program.done;
  t.is(errorCode(ended), "ZTUNNEL_THREAD_DIED");
  t.regex(messageOf(ended), /a bug/);
});

test.serial("a dedicated proxy serves its one workload without an agent", async (t) => {
  const app = await application(t, at(1), (socket) => void socket.pipe(socket));
  const program = new Program(t, { PROXY_MODE: "dedicated", PROXY_WORKLOAD_INFO: "default/a/a", LOCAL_XDS: mesh(at(1)) }, () => ({
    ip: at(1),
    port: app.port,
  }));
  await eventually(t, () => program.lines.some((line) => line.includes("ready for connections")));
  const socket = connect({ host: at(1), port: ports.outbound, allowHalfOpen: true });
  t.teardown(() => socket.destroy());
  socket.end("alone");
  t.is((await readAll(socket)).toString(), "alone");
});

test.serial("names are answered by the threads, from the mesh that they do not hold", async (t) => {
  const port = base + 9;
  const services = `
services:
  - {name: api, namespace: default, hostname: api.default.svc.cluster.local, vips: ["/10.0.0.1"], ports: {80: 8080}}
`;
  const program = new Program(
    t,
    {
      PROXY_MODE: "dedicated",
      PROXY_WORKLOAD_INFO: "default/a/a",
      LOCAL_XDS: mesh(at(1)).replace("services: []\n", services.trimStart()),
      ISTIO_META_DNS_CAPTURE: "true",
      ISTIO_META_DNS_PROXY_ADDR: `${at(1)}:${port}`,
    },
    () => undefined,
  );
  await eventually(t, () => program.lines.some((line) => line.includes("ready for connections")));
  for (const name of ["api.default.svc.cluster.local", "api", "API.default"]) t.is(addressCount(await askUdp(t, at(1), port, question(name))), 1, name);
  const tcp = new DnsClient(t, at(1), port);
  tcp.send(question("api.default", typeNumbers.aaaa));
  t.deepEqual(
    (await tcp.answers(1)).map((answer) => [codeOf(answer), addressCount(answer)]),
    [[0, 0]],
  );
  const { body } = await listening(() => get(ports.metrics, "/metrics"));
  t.regex(body, /istio_dns_requests_total\{request_query_type="a",request_protocol="udp",.*\} 3\n/);
});

test.serial("with ENABLE_PROXY=false names are all that is served", async (t) => {
  const port = base + 9;
  const services = 'services: [{name: api, namespace: default, hostname: api.default.svc.cluster.local, vips: ["/10.0.0.1"], ports: {80: 8080}}]';
  const env = {
    PROXY_MODE: "dedicated",
    PROXY_WORKLOAD_INFO: "default/a/a",
    LOCAL_XDS: mesh(at(1)).replace("services: []\n", services),
    ENABLE_PROXY: "false",
  };
  const program = new Program(t, { ...env, ISTIO_META_DNS_CAPTURE: "true", ISTIO_META_DNS_PROXY_ADDR: `${at(1)}:${port}` }, () => undefined);
  await eventually(t, () => program.lines.some((line) => line.includes("ready for connections")));
  t.is(addressCount(await askUdp(t, at(1), port, question("api.default.svc.cluster.local"))), 1);
  for (const closed of [ports.outbound, ports.plaintext, ports.hbone]) {
    const socket = connect({ host: at(1), port: closed });
    const [error] = await once(socket, "error");
    t.is(errorCode(error), "ECONNREFUSED", `port ${closed}`);
  }
});

test.serial("an application that is told of the program's SOCKS5 port is served by its threads", async (t) => {
  const app = await application(t, at(1), (socket) => void socket.pipe(socket));
  const env = { PROXY_MODE: "dedicated", PROXY_WORKLOAD_INFO: "default/a/a", LOCAL_XDS: mesh(at(1)), ENABLE_SOCKS5: "true", EXPLICIT_PROXY_ADDRESS: at(1) };
  const program = new Program(t, env, () => undefined);
  await eventually(t, () => program.lines.some((line) => line.includes("ready for connections")));
  const socket = connect({ host: at(1), port: ports.socks5, allowHalfOpen: true });
  t.teardown(() => socket.destroy());
  const address = at(1).split(".").map(Number);
  socket.end(Buffer.concat([Buffer.of(5, 1, 0, 5, 1, 0, 1, ...address, app.port >> 8, app.port & 255), Buffer.from("asked")]));
  t.is((await readAll(socket)).subarray(12).toString(), "asked");
});

test.serial("without its control plane the program runs, is not ready and serves no pod, and still ends when told", async (t) => {
  const program = new Program(t, { XDS_ADDRESS: "http://127.0.0.1:1", INPOD_UDS: "/nonexistent/zds.sock" }, () => undefined);
  const ready = await listening(() => get(ports.readiness, "/healthz/ready"));
  t.deepEqual(ready, { status: 500, body: "not ready, pending: state manager, proxy\n" });
  t.regex((await get(ports.metrics, "/metrics")).body, /istio_xds_connection_terminations_total\{reason="ConnectionError"\} \d+\n/);
  program.stop();
  t.is(await program.done, undefined);
});
