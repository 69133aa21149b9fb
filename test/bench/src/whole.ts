/**
 * The whole ztunnel under load, threads and all: one process serves two pods, so each connection passes it twice, with policy, metrics and
 * original destination in the path. Needs root. Compares numbers of threads, or programs, in turns.
 *   node dist/whole.js [--threads 1,2] [--program main.js,other.js] [--repetitions N] [--seconds N] [--workloads N]
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { openNamespace, type SeqpacketConnection, SeqpacketServer } from "@fairway/linux";
import { encodeZdsRequest, type ZdsRequest } from "@fairway/protocol";
import { machine } from "./machine.ts";
import { podNamespaces } from "./pod-namespaces.ts";
import { cpuSeconds, residentKb } from "./process-cost.ts";
import type { LoadKind, LoadResult } from "./whole-load.ts";

const { values: options } = parseArgs({
  options: {
    threads: { type: "string", default: "1,2" },
    program: { type: "string", default: fileURLToPath(new URL("../../../packages/ztunnel/dist/main.js", import.meta.url)) },
    repetitions: { type: "string", default: "3" },
    seconds: { type: "string", default: "4" },
    workloads: { type: "string", default: "0" },
  },
});
const forever = new AbortController().signal;
const loads: readonly LoadKind[] = ["connects", "requests", "down"];
const settleMs = 3_000;

interface Arm {
  readonly name: string;
  readonly program: string;
  readonly threads: string;
  readonly rows: Map<string, number[]>;
}

/** The two pods, and as many workloads again as are asked for, ten behind each service. */
function mesh(a: string, b: string, others: number): string {
  const workload = (name: string, namespace: string, ip: string, services: string): string =>
    `  - {uid: cluster//Pod/${namespace}/${name}, name: ${name}, namespace: ${namespace}, serviceAccount: ${name}, workloadName: ${name}, workloadIps: ["${ip}"], protocol: HBONE, services: ${services}}`;
  const hostOf = (index: number): string => `s${Math.floor(index / 10)}.far.svc.cluster.local`;
  const far = Array.from({ length: others }, (_, index) =>
    workload(`w${index}`, "far", `10.${100 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`, `{"far/${hostOf(index)}": {80: 8080}}`),
  );
  const services = Array.from({ length: Math.ceil(others / 10) }, (_, index) => {
    const vip = `10.200.${(index >> 8) & 255}.${index & 255}`;
    return `  - {name: s${index}, namespace: far, hostname: s${index}.far.svc.cluster.local, vips: ["/${vip}"], ports: {80: 8080}}`;
  });
  return [
    "workloads:",
    workload("a", "default", a, "{}"),
    workload("b", "default", b, "{}"),
    ...far,
    "policies: []",
    services.length === 0 ? "services: []" : "services:",
    ...services,
    "",
  ].join("\n");
}

async function ask(agent: SeqpacketConnection, request: ZdsRequest, fds: readonly number[]): Promise<void> {
  await agent.send(encodeZdsRequest(request), fds, { signal: forever });
  await agent.receive({ signal: forever });
}

/** Starts a ztunnel, hands it both pods, and stops it when disposed. */
async function serve(arm: Arm, pods: ReturnType<typeof podNamespaces>): Promise<AsyncDisposable & { readonly pid: number }> {
  const directory = mkdtempSync(join(tmpdir(), "fwbench-"));
  writeFileSync(join(directory, "mesh.yaml"), mesh(pods.a.ip, pods.b.ip, Number(options.workloads)));
  const { promise, resolve } = Promise.withResolvers<SeqpacketConnection>();
  const server = await SeqpacketServer.listen(join(directory, "zds.sock"), resolve);
  const env = {
    PATH: process.env["PATH"] ?? "",
    XDS_ADDRESS: "",
    LOCAL_XDS_PATH: join(directory, "mesh.yaml"),
    FAKE_CA: "true",
    INPOD_UDS: join(directory, "zds.sock"),
    ISTIO_META_DNS_CAPTURE: "false",
    ZTUNNEL_WORKER_THREADS: arm.threads,
    TERMINATION_GRACE_PERIOD_SECONDS: "2",
  };
  const child = spawn("ip", ["netns", "exec", pods.node, process.execPath, arm.program], { env, stdio: ["ignore", "ignore", "inherit"] });
  const agent = await promise;
  await agent.receive({ signal: forever });
  for (const { name, path } of [pods.a, pods.b]) {
    using namespace = openNamespace(path);
    await ask(agent, { kind: "add", uid: `uid-${name}`, workload: { namespace: "default", name, serviceAccount: name } }, [namespace.fd]);
  }
  await ask(agent, { kind: "snapshot-sent" }, []);
  return {
    pid: child.pid ?? 0,
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGTERM");
      await once(child, "exit");
      server.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

function inPod(namespace: string, ...args: readonly string[]): ChildProcess {
  const script = fileURLToPath(new URL("./whole-load.js", import.meta.url));
  return spawn("ip", ["netns", "exec", namespace, process.execPath, script, ...args], { stdio: ["ignore", "pipe", "inherit"] });
}

async function load(kind: LoadKind, pods: ReturnType<typeof podNamespaces>): Promise<LoadResult> {
  const child = inPod(pods.a.namespace, kind, pods.b.ip, options.seconds);
  let output = "";
  child.stdout?.on("data", (chunk) => {
    output += String(chunk);
  });
  await once(child, "exit");
  return JSON.parse(output) as LoadResult;
}

async function measure(arm: Arm, pods: ReturnType<typeof podNamespaces>): Promise<void> {
  const note = (row: string, value: number): void => void arm.rows.set(row, [...(arm.rows.get(row) ?? []), value]);
  await using ztunnel = await serve(arm, pods);
  await new Promise((resolve) => setTimeout(resolve, settleMs));
  note("resident memory at rest, MB", (await residentKb([ztunnel.pid])) / 1024);
  for (const kind of loads) {
    const before = await cpuSeconds([ztunnel.pid]);
    const { done, seconds, p50Ms, p99Ms, failed } = await load(kind, pods);
    const cpu = (await cpuSeconds([ztunnel.pid])) - before;
    if (failed > 0) process.stdout.write(`${arm.name}, ${kind}: ${failed} failed\n`);
    if (kind === "down") {
      note("down, 8 connections, Gbit/s", (done * 8) / seconds / 1e9);
      note("CPU per GB, s", cpu / (done / 1e9));
      continue;
    }
    note(`${kind}, /s`, done / seconds);
    note(`${kind}, p50 ms`, p50Ms);
    note(`${kind}, p99 ms`, p99Ms);
    note(`CPU per 1,000 ${kind}, ms`, (cpu / done) * 1e6);
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

async function main(): Promise<void> {
  process.stdout.write(`${machine()}\n`);
  const arms: Arm[] = options.program
    .split(",")
    .flatMap((program, index) =>
      options.threads
        .split(",")
        .map((threads) => ({ name: `${index > 0 ? `program ${index + 1}, ` : ""}${threads} threads`, program, threads, rows: new Map() })),
    );
  const pods = podNamespaces(`fwbench-${process.pid}`);
  const app = inPod(pods.b.namespace, "serve");
  try {
    for (let turn = 0; turn < Number(options.repetitions); turn++) for (const arm of arms) await measure(arm, pods);
    for (const row of arms[0]?.rows.keys() ?? []) {
      const cells = arms.map(({ name, rows }) => {
        const values = rows.get(row) ?? [];
        return `${name} ${median(values).toPrecision(4)} [${Math.min(...values).toPrecision(4)}..${Math.max(...values).toPrecision(4)}]`;
      });
      process.stdout.write(`${row}: ${cells.join("; ")}\n`);
    }
  } finally {
    app.kill();
    pods[Symbol.dispose]();
  }
}

if (process.getuid?.() === 0) await main();
else process.stdout.write("skipped: the whole ztunnel needs root and network namespaces\n");
