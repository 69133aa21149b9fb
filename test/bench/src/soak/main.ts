/**
 * The ztunnel program for minutes, with everything that comes and goes around it: connections that half-close, reset, stall and are cut off,
 * workloads and a policy that change every second, and pods that leave and return. At rest, between two rounds, it must be as large as ever.
 * Needs root.
 *   npm run soak -- [--minutes 10] [--seconds N] [--rate connections a second]
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { openNamespace, type SeqpacketConnection, SeqpacketServer } from "@fairway/linux";
import { decodeZdsResponse, encodeZdsRequest, type ZdsRequest } from "@fairway/protocol";
import { machine } from "../machine.ts";
import { type BenchPod, podNamespaces } from "../pod-namespaces.ts";
import { type ChurnCounts, discoveryPort, ports } from "./places.ts";
import { judge, type Sample } from "./verdict.ts";

const { values: options } = parseArgs({
  options: { minutes: { type: "string", default: "10" }, seconds: { type: "string" }, rate: { type: "string", default: "60" } },
});
const seconds = options.seconds === undefined ? Number(options.minutes) * 60 : Number(options.seconds);
/** A round of load, then a rest. */
const roundMs = seconds < 120 ? 4_000 : 8_000;
const restMs = seconds < 120 ? 1_500 : 2_500;
const changeEveryMs = 1_000;
const podsChangeEveryMs = 1_500;
/** Less than a rest, so that nothing half-closed outlives a round. */
const halfClosed = "1s";
const forever = new AbortController().signal;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const children = new Set<ChildProcess>();
/** Set by a signal: the round under way is the last. */
let stopping = false;

function spawnIn(namespace: string, script: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env): ChildProcess {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const child = spawn("ip", ["netns", "exec", namespace, process.execPath, path, ...args], { env, stdio: ["ignore", "ignore", "pipe", "ipc"] });
  children.add(child);
  child.once("exit", () => children.delete(child));
  child.stderr?.on("data", (data: Buffer) => process.stderr.write(data));
  return child;
}

/** A helper that says when it is ready. */
async function helper(namespace: string, script: string, ...args: readonly string[]): Promise<ChildProcess> {
  const child = spawnIn(namespace, script, args);
  await once(child, "message");
  return child;
}

async function ask(agent: SeqpacketConnection, request: ZdsRequest, fds: readonly number[] = []): Promise<void> {
  await agent.send(encodeZdsRequest(request), fds, { signal: forever });
  const { error } = decodeZdsResponse((await agent.receive({ signal: forever }))?.bytes ?? new Uint8Array());
  if (error !== "") throw new Error(`the program refused ${request.kind}: ${error}`);
}

async function enrol(agent: SeqpacketConnection, { name, path }: BenchPod): Promise<void> {
  using namespace = openNamespace(path);
  await ask(agent, { kind: "add", uid: `uid-${name}`, workload: { namespace: "default", name, serviceAccount: name } }, [namespace.fd]);
}

function meshOf(pods: readonly BenchPod[]): string {
  const lines = pods.map(
    ({ name, ip }) =>
      `  - {uid: cluster//Pod/default/${name}, name: ${name}, namespace: default, serviceAccount: ${name}, workloadName: ${name}, workloadIps: ["${ip}"], protocol: HBONE, services: {}}`,
  );
  return ["workloads:", ...lines, "policies: []", "services: []", ""].join("\n");
}

function sample(pid: number, since: number): Sample {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const number = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0);
  return {
    seconds: (performance.now() - since) / 1_000,
    residentMb: number("VmRSS") / 1_024,
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    threads: number("Threads"),
  };
}

function line({ seconds: at, residentMb, descriptors, threads }: Sample, { connections, whole, broken, wrong }: ChurnCounts): string {
  return `${at.toFixed(0).padStart(5)} s ${residentMb.toFixed(1).padStart(8)} MB ${String(descriptors).padStart(5)} descriptors ${String(threads).padStart(3)} threads ${connections} connections, ${whole} whole, ${broken} broken off, ${wrong} wrong\n`;
}

async function soak(directory: string, pods: ReturnType<typeof podNamespaces>): Promise<readonly string[]> {
  const meshFile = join(directory, "mesh.yaml");
  writeFileSync(meshFile, meshOf([pods.a, pods.b]));
  const { promise, resolve } = Promise.withResolvers<SeqpacketConnection>();
  const server = await SeqpacketServer.listen(join(directory, "zds.sock"), resolve);
  await helper(pods.node, "./control-plane.js", meshFile, String(changeEveryMs), String(ports.denied));
  await helper(pods.b.namespace, "./churn.js", "serve");
  const churn = await helper(pods.a.namespace, "./churn.js", "act", pods.b.ip, options.rate);
  const program = spawnIn(pods.node, "../../../../packages/ztunnel/dist/main.js", ["proxy"], {
    PATH: process.env["PATH"] ?? "",
    XDS_ADDRESS: `http://127.0.0.1:${discoveryPort}`,
    FAKE_CA: "true",
    INPOD_UDS: join(directory, "zds.sock"),
    ISTIO_META_DNS_CAPTURE: "false",
    ZTUNNEL_WORKER_THREADS: "2",
    HALF_CLOSED_TIMEOUT: halfClosed,
    RUST_LOG: "error",
  });
  const agent = await Promise.race([promise, once(program, "exit").then(() => undefined)]);
  if (agent === undefined) return ["the program ended before it was connected"];
  await agent.receive({ signal: forever });
  for (const pod of [pods.a, pods.b]) await enrol(agent, pod);
  await ask(agent, { kind: "snapshot-sent" });

  const since = performance.now();
  const samples: Sample[] = [];
  let counts: ChurnCounts = { connections: 0, whole: 0, broken: 0, wrong: 0 };
  for (let turn = 0; performance.now() - since < seconds * 1_000 && program.exitCode === null && !stopping; turn++) {
    churn.send("go");
    const roundEnds = performance.now() + roundMs;
    while (performance.now() < roundEnds) {
      await pause(podsChangeEveryMs);
      const pod = turn % 2 === 0 ? pods.b : pods.a;
      await ask(agent, { kind: "del", uid: `uid-${pod.name}` });
      await enrol(agent, pod);
    }
    churn.send("rest");
    [counts] = (await once(churn, "message")) as [ChurnCounts];
    await pause(restMs);
    const taken = sample(program.pid ?? 0, since);
    samples.push(taken);
    process.stdout.write(line(taken, counts));
  }
  server.close();
  const problems = [...judge(samples)];
  if (program.exitCode !== null) problems.push(`the program ended with ${program.exitCode}`);
  if (counts.wrong > 0) problems.push(`${counts.wrong} echoes came back otherwise than they went`);
  if (counts.whole * 20 < counts.connections) problems.push(`only ${counts.whole} of ${counts.connections} connections were echoes that came back whole`);
  summarise(samples);
  return problems;
}

function summarise(samples: readonly Sample[]): void {
  const row = (name: string, values: readonly number[]): void =>
    void process.stdout.write(
      `${name.padEnd(16)} first ${values[0]?.toFixed(1)}, least ${Math.min(...values).toFixed(1)}, most ${Math.max(...values).toFixed(1)}, last ${values.at(-1)?.toFixed(1)}\n`,
    );
  row(
    "resident MB",
    samples.map(({ residentMb }) => residentMb),
  );
  row(
    "descriptors",
    samples.map(({ descriptors }) => descriptors),
  );
  row(
    "threads",
    samples.map(({ threads }) => threads),
  );
}

async function main(): Promise<void> {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => {
      stopping = true;
    });
  }
  process.stdout.write(`${machine()}; ${seconds} s, ${options.rate} connections a second\n`);
  const directory = mkdtempSync(join(tmpdir(), "fwsoak-"));
  const pods = podNamespaces(`fwsoak-${process.pid}`);
  try {
    const problems = await soak(directory, pods);
    process.stdout.write(problems.length === 0 ? "flat\n" : `${problems.join("\n")}\n`);
    process.exitCode = problems.length === 0 ? 0 : 1;
  } finally {
    const ended = [...children].map((child) => once(child, "exit"));
    for (const child of children) child.kill("SIGKILL");
    await Promise.all(ended);
    pods[Symbol.dispose]();
    rmSync(directory, { recursive: true, force: true });
  }
}

if (process.geteuid?.() === 0) await main();
else process.stdout.write("skipped: a soak needs root and network namespaces\n");
