/** Child processes of a bench run: pinned to a core, told what to do by message, and always stopped by pid. */
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

export interface Child extends AsyncDisposable {
  readonly pid: number;
  /** Sends one message and waits for the answer. Throws when the child ends instead. */
  ask(message: unknown): Promise<unknown>;
}

const canPin = spawnSync("taskset", ["--version"]).status === 0;
const stopGraceMs = 1_000;
/** Extra options for the hops, to profile one: FAIRWAY_BENCH_NODE_OPTIONS="--cpu-prof". */
const nodeOptions = (process.env["FAIRWAY_BENCH_NODE_OPTIONS"] ?? "").split(" ").filter((option) => option !== "");

export const pinned: boolean = canPin;
const live = new Set<ChildProcess>();
const groups = new WeakSet<ChildProcess>();

/** Kills whatever still runs; for the exit path, where nothing can be awaited. */
export function killAll(): void {
  for (const child of live) {
    if (groups.has(child)) signalGroup(child, "SIGKILL");
    else child.kill("SIGKILL");
  }
}

/** Where a process runs besides its core; in the bench's own network namespace unless told. */
export interface Place {
  readonly namespace?: string | undefined;
}

/** Starts a program of this package with `flags` of Node, on `core` or wherever there is room; resolves when it answered `setup`. */
export async function startProgram(
  file: string,
  core: number | undefined,
  setup: unknown,
  { profile = false, flags = [], namespace }: Place & { readonly profile?: boolean; readonly flags?: readonly string[] } = {},
): Promise<{ child: Child; answer: unknown }> {
  const path = fileURLToPath(new URL(file, import.meta.url));
  const nodeArgs = [...flags, ...(profile ? nodeOptions : []), path];
  const process_ = spawnOn(core, namespace, process.execPath, nodeArgs, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  const child = wrap(process_, file, (signal) => process_.kill(signal));
  try {
    return { child, answer: await child.ask(setup) };
  } catch (thrown) {
    await child[Symbol.asyncDispose]();
    throw thrown;
  }
}

/** Starts any program on `core`, as the head of a process group: what it starts itself ends with it. */
export function startCommand(command: string, args: readonly string[], core: number, { namespace }: Place = {}): Child {
  const child = spawnOn(core, namespace, command, args, { stdio: ["ignore", "ignore", "inherit"], detached: true });
  groups.add(child);
  child.once("exit", () => signalGroup(child, "SIGKILL"));
  return wrap(child, command, (signal) => signalGroup(child, signal));
}

function spawnOn(core: number | undefined, namespace: string | undefined, command: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  const line = [
    ...(namespace === undefined ? [] : ["ip", "netns", "exec", namespace]),
    ...(canPin && core !== undefined ? ["taskset", "-c", String(core)] : []),
    command,
    ...args,
  ];
  const child = spawn(line[0] ?? command, line.slice(1), options);
  live.add(child);
  child.once("exit", () => live.delete(child));
  return child;
}

function signalGroup({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  try {
    if (pid !== undefined) process.kill(-pid, signal);
  } catch {
    // Nobody is left in the group.
  }
}

function wrap(child: ChildProcess, name: string, kill: (signal: NodeJS.Signals) => void): Child {
  const exited = once(child, "exit");
  return {
    pid: child.pid ?? 0,
    async ask(message) {
      if (child.exitCode !== null) throw new Error(`${name} is not running`);
      const answer = once(child, "message");
      child.send(message as object);
      const [first] = await Promise.race([
        answer,
        exited.then(([code, signal]) => {
          throw new Error(`${name} ended early: ${code ?? signal}`);
        }),
      ]);
      return first;
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      kill("SIGTERM");
      const timer = setTimeout(() => kill("SIGKILL"), stopGraceMs);
      await exited;
      clearTimeout(timer);
    },
  };
}

/** The other side: answers each message with what `handle` returns. Ends with the parent. */
export function serveParent(handle: (message: never) => Promise<unknown>): void {
  process.on("message", (message) => {
    handle(message as never).then(
      (answer) => process.send?.(answer ?? {}),
      (thrown: unknown) => {
        console.error(thrown);
        process.exit(1);
      },
    );
  });
  process.on("disconnect", () => process.exit(0));
  process.on("SIGTERM", () => process.exit(0));
}
