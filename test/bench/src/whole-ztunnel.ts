/** Starts a whole ztunnel for two pods and plays its node agent and its operator. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { openNamespace, type SeqpacketConnection, SeqpacketServer } from "@fairway/linux";
import { encodeZdsRequest, type ZdsRequest } from "@fairway/protocol";
import type { podNamespaces } from "./pod-namespaces.ts";
import { residentKb } from "./process-cost.ts";
import { discoveryPort } from "./soak/places.ts";
import { mesh } from "./whole-mesh.ts";

export type Pods = ReturnType<typeof podNamespaces>;

export interface WholeZtunnel extends AsyncDisposable {
  readonly pid: number;
  /** What is left after all garbage was collected, once it no longer changes: the main thread's heap and the process, in kilobytes. */
  settled(): Promise<{ readonly heapKb: number; readonly residentKb: number }>;
}

export interface WholeSetup {
  readonly program: string;
  readonly threads: string;
  /** Known besides the two pods. */
  readonly workloads: number;
  /** How it learns of them: its local configuration, or a control plane, as in a cluster. */
  readonly from: "file" | "control plane";
}

const forever = new AbortController().signal;
const probe = fileURLToPath(new URL("./heap-probe.js", import.meta.url));
/** The one of the soak, told to stay as it is: the longest period a timer can have. */
const controlPlane = fileURLToPath(new URL("./soak/control-plane.js", import.meta.url));
const neverMs = 2 ** 31 - 1;
const probePauseMs = 1_000;
const probeAttempts = 60;
const pollMs = 50;
const pollAttempts = 1_200;
/** Two readings that differ by less are the same. */
const sameShare = 0.005;

export async function startZtunnel({ program, threads, workloads, from }: WholeSetup, pods: Pods): Promise<WholeZtunnel> {
  const directory = mkdtempSync(join(tmpdir(), "fwbench-"));
  const heapFile = join(directory, "heap");
  const meshFile = join(directory, "mesh.yaml");
  writeFileSync(meshFile, mesh(pods.a.ip, pods.b.ip, workloads));
  const discovery = from === "file" ? undefined : await startControlPlane(pods, meshFile);
  const { promise, resolve } = Promise.withResolvers<SeqpacketConnection>();
  const server = await SeqpacketServer.listen(join(directory, "zds.sock"), resolve);
  const env = {
    PATH: process.env["PATH"] ?? "",
    ...(discovery === undefined ? { XDS_ADDRESS: "", LOCAL_XDS_PATH: meshFile } : { XDS_ADDRESS: `http://127.0.0.1:${discoveryPort}` }),
    FAKE_CA: "true",
    INPOD_UDS: join(directory, "zds.sock"),
    ISTIO_META_DNS_CAPTURE: "false",
    ZTUNNEL_WORKER_THREADS: threads,
    TERMINATION_GRACE_PERIOD_SECONDS: "2",
    FAIRWAY_BENCH_HEAP: heapFile,
  };
  const command = ["netns", "exec", pods.node, process.execPath, "--expose-gc", "--import", probe, program];
  const child = spawn("ip", command, { env, stdio: ["ignore", "ignore", "inherit"] });
  const pid = child.pid ?? 0;
  const exited = once(child, "exit");
  const stop = async (): Promise<void> => {
    child.kill("SIGTERM");
    await exited;
    discovery?.kill();
    server.close();
    rmSync(directory, { recursive: true, force: true });
  };
  const read = async (): Promise<number> => {
    rmSync(heapFile, { force: true });
    child.kill("SIGUSR2");
    for (let attempt = 0; attempt < pollAttempts && !existsSync(heapFile); attempt++) await sleep(pollMs);
    if (!existsSync(heapFile)) throw new Error(`${program} does not answer SIGUSR2: it ended, or its main thread is busy for longer than a minute`);
    const { heapUsed, external } = JSON.parse(readFileSync(heapFile, "utf8")) as { heapUsed: number; external: number };
    return (heapUsed + external) / 1024;
  };
  const settled = async (): Promise<{ heapKb: number; residentKb: number }> => {
    let last = await read();
    for (let attempt = 0; attempt < probeAttempts; attempt++) {
      await sleep(probePauseMs);
      const now = await read();
      if (Math.abs(now - last) < sameShare * last) return { heapKb: now, residentKb: await residentKb([pid]) };
      last = now;
    }
    throw new Error("the heap of ztunnel does not settle");
  };
  try {
    const agent = await Promise.race([
      promise,
      exited.then(() => {
        throw new Error(`${program} ended before it asked for pods`);
      }),
    ]);
    await agent.receive({ signal: forever });
    for (const { name, path } of [pods.a, pods.b]) {
      using namespace = openNamespace(path);
      await ask(agent, { kind: "add", uid: `uid-${name}`, workload: { namespace: "default", name, serviceAccount: name } }, [namespace.fd]);
    }
    await ask(agent, { kind: "snapshot-sent" }, []);
    return { pid, settled, [Symbol.asyncDispose]: stop };
  } catch (thrown) {
    await stop();
    throw thrown;
  }
}

async function startControlPlane(pods: Pods, meshFile: string): Promise<ChildProcess> {
  const command = ["netns", "exec", pods.node, process.execPath, controlPlane, meshFile, String(neverMs)];
  const child = spawn("ip", command, { stdio: ["ignore", "ignore", "inherit", "ipc"] });
  await once(child, "message");
  return child;
}

async function ask(agent: SeqpacketConnection, request: ZdsRequest, fds: readonly number[]): Promise<void> {
  await agent.send(encodeZdsRequest(request), fds, { signal: forever });
  await agent.receive({ signal: forever });
}
