/** `fairway up` and `fairway down`: a cluster with the mesh that outlives the command that raised it. */
import { spawn } from "node:child_process";
import { closeSync, existsSync, openSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { destroyLeftovers } from "@fairway/local-cluster";
import { MeshError } from "@fairway/runtime";
import { defaultClusterName } from "./default-cluster-name.ts";
import { installMesh } from "./demo/mesh.ts";
import { enterLine } from "./enter-line.ts";
import { eventually } from "./eventually.ts";
import { progressOn } from "./output.ts";
import { raiseCluster } from "./raise.ts";

interface UpState {
  readonly pid: number;
  /** Start time of the process in clock ticks since boot, so that a reused pid is never taken for it. */
  readonly startTime: string;
  readonly kubeconfig: string | undefined;
}

const upTimeoutMs = 180_000;
const downTimeoutMs = 60_000;

/** Raises the cluster in a process of its own and returns when the mesh is ready. */
export async function up({ stateFolder, nodes, name }: { stateFolder: string; nodes: number; name: string }): Promise<void> {
  const running = await readState(stateFolder);
  if (running !== undefined && (await isRunning(running)))
    throw new MeshError("CLI_ALREADY_UP", `a cluster is already up; use it with KUBECONFIG=${running.kubeconfig}, or take it down with ${downCommand(name)}`);
  await mkdir(stateFolder, { recursive: true });
  // What a crashed one wrote must not be taken for the word of the one that starts now.
  await rm(`${stateFolder}/up.json`, { force: true });
  const progress = progressOn(process.stderr);
  const log = openSync(`${stateFolder}/up.log`, "a");
  const child = spawn(process.execPath, [process.argv[1] ?? "", "up", "--foreground", "--name", name, "--nodes", String(nodes), "--state", stateFolder], {
    detached: true,
    stdio: ["ignore", log, log],
  });
  closeSync(log);
  let exited = false;
  child.on("exit", () => {
    exited = true;
  });
  const state = await progress.step(`raising ${nodes} nodes and installing the mesh`, () =>
    eventually(
      "the mesh",
      async () => {
        if (exited) return { failed: await readFile(`${stateFolder}/up.log`, "utf8") };
        const current = await readState(stateFolder);
        return current?.kubeconfig === undefined ? undefined : { kubeconfig: current.kubeconfig, pid: current.pid };
      },
      { timeoutMs: upTimeoutMs },
    ),
  );
  if ("failed" in state)
    throw new MeshError(
      "CLI_UP_FAILED",
      `the cluster did not come up; its last words in ${stateFolder}/up.log:\n${state.failed.trimEnd().split("\n").slice(-15).join("\n")}`,
    );
  child.unref();
  process.stdout.write(
    `The mesh is up. Try:\n\n${enterLine(state.pid)}  export KUBECONFIG=${state.kubeconfig}\n  kubectl get nodes\n  kubectl apply -f examples/shop/shop.yaml\n  kubectl label namespace shop istio.io/dataplane-mode=ambient\n\n${downCommand(name)} takes it away again.\n`,
  );
}

/** The process behind `fairway up`: holds the cluster until it is told to stop. */
export async function upInForeground({
  stateFolder,
  nodes,
  name,
  stop,
}: {
  stateFolder: string;
  nodes: number;
  name: string;
  stop: AbortSignal;
}): Promise<void> {
  const progress = progressOn(process.stderr);
  await mkdir(stateFolder, { recursive: true });
  const startTime = await processStartTime(process.pid);
  await writeState(stateFolder, { pid: process.pid, startTime: startTime ?? "", kubeconfig: undefined });
  const cluster = await raiseCluster({ name, stateFolder, nodes, progress });
  try {
    await progress.step("installing the mesh from charts/fairway", () => installMesh(cluster));
    await writeState(stateFolder, { pid: process.pid, startTime: startTime ?? "", kubeconfig: cluster.kubeconfigPath });
    await new Promise<void>((resolve) => {
      if (stop.aborted) resolve();
      stop.addEventListener("abort", () => resolve(), { once: true });
    });
  } finally {
    await cluster[Symbol.asyncDispose]();
    await rm(`${stateFolder}/up.json`, { force: true });
  }
}

/** Takes the cluster of `fairway up` away, also what a crashed one left behind. */
export async function down({ stateFolder, name }: { stateFolder: string; name: string }): Promise<void> {
  const progress = progressOn(process.stderr);
  if (!existsSync(stateFolder)) {
    process.stdout.write(`There is no cluster named ${name}; nothing to take down.\n`);
    return;
  }
  const state = await readState(stateFolder);
  await progress.step("taking the cluster down", async () => {
    if (state !== undefined && (await isRunning(state))) {
      process.kill(state.pid, "SIGTERM");
      await eventually("the end of the cluster", async () => ((await isRunning(state)) ? undefined : true), { timeoutMs: downTimeoutMs });
    }
    await destroyLeftovers(stateFolder);
    await rm(stateFolder, { recursive: true, force: true });
  });
}

function downCommand(name: string): string {
  return name === defaultClusterName ? "fairway down" : `fairway down --name ${name}`;
}

async function readState(stateFolder: string): Promise<UpState | undefined> {
  try {
    return JSON.parse(await readFile(`${stateFolder}/up.json`, "utf8")) as UpState;
  } catch {
    return undefined;
  }
}

async function writeState(stateFolder: string, state: UpState): Promise<void> {
  await writeFile(`${stateFolder}/up.json`, JSON.stringify(state));
}

async function isRunning({ pid, startTime }: UpState): Promise<boolean> {
  return (await processStartTime(pid)) === startTime;
}

/** Field 22 of /proc/<pid>/stat (proc(5)); undefined when there is no such process. */
async function processStartTime(pid: number): Promise<string | undefined> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    // A zombie has ended; only nobody has asked how.
    return fields[0] === "Z" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}
