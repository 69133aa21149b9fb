/**
 * A container as processes of this machine: `nsenter` joins the pod's network, `unshare` makes the mount, pid and host name
 * namespaces, a script builds the root and becomes the program. The death of the launcher, or of this process, ends the program.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PassThrough, Readable, type Writable } from "node:stream";
import { outputPipe } from "@fairway/linux";
import { MeshError } from "@fairway/runtime";
import { exitCodeOf, toolEnvironment } from "../command.ts";
import type { Ledger } from "../ledger.ts";
import { type Program, programCommand, type RootOptions, rootScript } from "./root-script.ts";

export interface ProcessExit {
  readonly code: number;
  readonly signal: NodeJS.Signals | undefined;
}

export interface LaunchOptions {
  readonly ledger: Ledger;
  readonly netNamespacePath: string;
  /** A directory of this container; its script and its root live there. */
  readonly directory: string;
  readonly root: Omit<RootOptions, "workDir" | "list" | "hostPid">;
  readonly hostPid?: boolean;
}

export interface ContainerProcess {
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly exit: Promise<ProcessExit>;
  /** The pid, on the machine, of the program itself; undefined before it runs and after it ended. */
  programPid(): number | undefined;
  /** Sends a signal to the program; false when there is none. */
  signal(signal: NodeJS.Signals): boolean;
  /** Starts a further process inside. Throws LOCAL_CLUSTER_CONTAINER_NOT_RUNNING. */
  exec(argv: readonly string[]): ExecProcess;
}

export interface ExecProcess {
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly exit: Promise<ProcessExit>;
  kill(): void;
}

// Whoever started it is gone: nothing may outlive this process, not even after SIGKILL.
const tied = ["setpriv", "--pdeathsig=KILL"];

const maxLauncherText = 4_096;

/** Starts a container. Throws LOCAL_CLUSTER_LAUNCH_FAILED. */
export async function launchContainer({ ledger, netNamespacePath, directory, root, hostPid = false }: LaunchOptions): Promise<ContainerProcess> {
  const workDir = join(directory, "root");
  const scriptFile = join(directory, "start.sh");
  mkdirSync(workDir, { recursive: true });
  writeFileSync(scriptFile, rootScript({ ...root, workDir, hostPid, list: listDirectory }), { mode: 0o600 });
  const pidNamespace = hostPid ? [] : ["--pid", "--kill-child"];
  const argv = [...tied, "nsenter", `--net=${netNamespacePath}`, "unshare", "--mount", "--propagation", "slave", "--uts", "--fork", ...pidNamespace];
  const { child, stdout, stderr, exit } = await started([...argv, "sh", "-eu", scriptFile]);
  const launcher = child.pid ?? 0;
  ledger.recordProcess(launcher);
  let killed = false;
  const ended = exit
    // The launcher cannot end by SIGKILL itself and reports 1 for it (unshare(1) fails to unblock the signal).
    .then((result): ProcessExit => (killed && result.code === 1 ? { code: 137, signal: "SIGKILL" } : result))
    .finally(() => rmSync(scriptFile, { force: true }));
  let program: number | undefined;
  const programPid = (): number | undefined => {
    if (child.exitCode !== null || child.signalCode !== null) return undefined;
    program ??= firstChild(launcher);
    return program;
  };
  return {
    stdout,
    stderr,
    exit: ended,
    programPid,
    signal: (signal) => {
      const pid = programPid();
      if (signal === "SIGKILL") killed = true;
      // Before the program runs, or when it has just ended, only the launcher can be told.
      return pid === undefined ? child.kill(signal) : kill(pid, signal);
    },
    exec: (command) => execIn(programPid(), command, root.program),
  };
}

/** A process beside the program, in all its namespaces and with its environment and privileges. */
function execIn(pid: number | undefined, argv: readonly string[], { env, workingDir, privileges }: Program): ExecProcess {
  if (pid === undefined) throw new MeshError("LOCAL_CLUSTER_CONTAINER_NOT_RUNNING", "the container is not running");
  const inside = ["sh", "-c", 'cd "$0" && exec "$@"', workingDir, ...argv];
  const command = [
    "nsenter",
    "--target",
    String(pid),
    "--net",
    "--mount",
    "--pid",
    "--uts",
    "--",
    ...tied,
    ...programCommand({ argv: inside, env, workingDir, privileges }),
  ];
  return startProcess([...tied, ...command]);
}

/** A process of this machine, tied to ours. Its failure to start is its exit's rejection. */
export function startProcess(argv: readonly string[], env?: Readonly<Record<string, string>>): ExecProcess & { readonly pid: number | undefined } {
  const [file = "", ...args] = argv;
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "pipe"], env: env === undefined ? toolEnvironment() : { ...env } });
  const exit = exitOf(child, file);
  exit.catch(() => undefined);
  for (const stream of [child.stdin, child.stdout, child.stderr]) stream.on("error", () => undefined);
  return { pid: child.pid, stdin: child.stdin, stdout: child.stdout, stderr: child.stderr, exit, kill: () => void child.kill("SIGKILL") };
}

/** Whether a program would do anything about SIGTERM: as pid 1 of its namespace, without a handler, the kernel discards it (pid_namespaces(7)). */
export function handlesTermination(pid: number): boolean {
  try {
    const caught = /^SigCgt:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    return caught === undefined || ((BigInt(`0x${caught}`) >> 14n) & 1n) === 1n;
  } catch {
    return true;
  }
}

interface Started {
  readonly child: ChildProcess;
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly exit: Promise<ProcessExit>;
}

/** Resolves when the script is about to become the program: before that, whoever entered the container would see half a root. */
async function started(argv: readonly string[]): Promise<Started> {
  const [file = "", ...args] = argv;
  // Descriptor 3 is the program's error output: what the launcher itself says is not the program's.
  const [stdoutPipe, stderrPipe] = [outputPipe(), outputPipe()];
  const child = spawn(file, args, { stdio: ["ignore", stdoutPipe.writeEnd, "pipe", stderrPipe.writeEnd, "pipe"], env: toolEnvironment() });
  stdoutPipe.release();
  stderrPipe.release();
  const { output: stdout } = stdoutPipe;
  const { output: stderr } = stderrPipe;
  const exit = exitOf(child, file);
  exit.catch(() => undefined);
  const [, , launcherErrors, , ready] = child.stdio;
  if (!(launcherErrors instanceof Readable && ready instanceof Readable)) {
    stdout.destroy();
    stderr.destroy();
    throw new MeshError("LOCAL_CLUSTER_LAUNCH_FAILED", `cannot start ${file}; is it installed?`);
  }
  let said = "";
  launcherErrors.on("data", (chunk: Buffer) => {
    if (said.length < maxLauncherText) said += chunk.toString("utf8");
  });
  launcherErrors.on("error", () => undefined);
  ready.on("error", () => undefined);
  // Read from the start: what a short program writes would be gone when it has ended (Node drops what nobody reads then).
  for (const stream of [stdout, stderr]) stream.on("error", () => undefined);
  const kept = { stdout: stdout.pipe(new PassThrough()), stderr: stderr.pipe(new PassThrough()) };
  const isReady = await new Promise<boolean>((resolve) => {
    ready.once("data", () => resolve(true));
    ready.once("close", () => resolve(false));
  });
  if (!isReady) {
    const { code } = await exit;
    throw new MeshError("LOCAL_CLUSTER_LAUNCH_FAILED", `the container's root could not be made: ${said.trim() || `exit code ${code}`}`);
  }
  return { child, ...kept, exit };
}

function exitOf(child: ChildProcess, file: string): Promise<ProcessExit> {
  return new Promise((resolve, reject) => {
    child.on("error", (cause) => reject(new MeshError("LOCAL_CLUSTER_LAUNCH_FAILED", `cannot start ${file}; is it installed?`, { cause })));
    child.on("exit", (code, by) => resolve({ code: exitCodeOf(code, by), signal: by ?? undefined }));
  });
}

function firstChild(pid: number): number | undefined {
  try {
    const first = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ")[0] ?? "";
    return first === "" ? undefined : Number(first);
  } catch {
    return undefined;
  }
}

function kill(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal);
  } catch {
    return false;
  }
}

function listDirectory(directory: string): { name: string; kind: "directory" | "file" | "symlink" }[] {
  try {
    return readdirSync(directory, { withFileTypes: true }).map((entry) => ({
      name: entry.name,
      kind: entry.isDirectory() ? "directory" : entry.isSymbolicLink() ? "symlink" : "file",
    }));
  } catch {
    return [];
  }
}
