/** Short host commands (ip, nft, nsenter): bounded output, a deadline, and errors that carry what the command said. */
import { execFileSync, spawn } from "node:child_process";
import { MeshError } from "@fairway/runtime";

export interface CommandOptions {
  readonly stdin?: string | Uint8Array | undefined;
  readonly env?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface CommandResult {
  /** The exit code; 128 + signal number when a signal ended it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Where distributions keep the machine's own tools. */
export const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * The environment for the machine's own tools: system directories before whatever else is on the path, because a checkout's
 * `node_modules/.bin` may hold another program of the same name (`nft` is also a bundler's tracer).
 */
export function toolEnvironment(): Record<string, string | undefined> {
  return { ...process.env, PATH: `${systemPath}:${process.env["PATH"] ?? ""}` };
}

const requiredTools = ["ip", "nft", "nsenter", "unshare", "setpriv", "mount", "umount", "pivot_root"];

/** Which of the commands that a cluster runs is not there, in words, or undefined. */
export function missingTool(): string | undefined {
  for (const tool of requiredTools) {
    try {
      execFileSync("sh", ["-c", `command -v ${tool}`], { stdio: "ignore", env: toolEnvironment() });
    } catch {
      return `the command ${tool} is not installed`;
    }
  }
  return undefined;
}

/** Output beyond this is dropped: nothing here is expected to print more. */
export const maxCommandOutputBytes: number = 8 * 1024 * 1024;
const defaultTimeoutMs = 30_000;

/** Runs a command to its end; a non-zero exit is a result. Throws LOCAL_CLUSTER_COMMAND_FAILED when it cannot start or exceeds its time, or the signal's reason. */
export function runCommand(argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const [file, ...args] = argv;
  const { promise, resolve, reject } = Promise.withResolvers<CommandResult>();
  if (file === undefined) {
    reject(new MeshError("LOCAL_CLUSTER_COMMAND_FAILED", "an empty command cannot be run"));
    return promise;
  }
  const timeoutMs = options.timeoutMs ?? defaultTimeoutMs;
  const timeout = AbortSignal.timeout(timeoutMs);
  const signal = options.signal === undefined ? timeout : AbortSignal.any([options.signal, timeout]);
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "pipe"], env: options.env === undefined ? toolEnvironment() : { ...options.env } });
  const onAbort = (): void => void child.kill("SIGKILL");
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  const stdout = boundedText(child.stdout);
  const stderr = boundedText(child.stderr);
  child.on("error", (cause) => {
    signal.removeEventListener("abort", onAbort);
    reject(new MeshError("LOCAL_CLUSTER_COMMAND_FAILED", `cannot run ${file}; is it installed?`, { cause }));
  });
  child.on("close", (code, by) => {
    signal.removeEventListener("abort", onAbort);
    if (options.signal?.aborted === true) reject(options.signal.reason);
    else if (timeout.aborted) reject(new MeshError("LOCAL_CLUSTER_COMMAND_FAILED", `${argv.join(" ")} did not end within ${timeoutMs} ms`));
    else resolve({ code: exitCodeOf(code, by), stdout: stdout(), stderr: stderr() });
  });
  // A command may end without reading its input; that is not our failure.
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.stdin);
  return promise;
}

/** Runs a command that must succeed. Throws LOCAL_CLUSTER_COMMAND_FAILED with what it printed. */
export async function mustRun(argv: readonly string[], options: CommandOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await runCommand(argv, options);
  if (code === 0) return stdout;
  throw new MeshError("LOCAL_CLUSTER_COMMAND_FAILED", `${argv.slice(0, 6).join(" ")} ended with code ${code}: ${(stderr || stdout).trim()}`);
}

const signalNumbers: Readonly<Record<string, number>> = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGABRT: 6, SIGKILL: 9, SIGSEGV: 11, SIGPIPE: 13, SIGTERM: 15 };

/** The number a shell would report. */
export function exitCodeOf(code: number | null, by: NodeJS.Signals | null): number {
  if (code !== null) return code;
  return 128 + (by === null ? 0 : (signalNumbers[by] ?? 0));
}

function boundedText(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = [];
  let length = 0;
  stream.on("data", (chunk: Buffer) => {
    if (length >= maxCommandOutputBytes) return;
    chunks.push(chunk);
    length += chunk.length;
  });
  stream.on("error", () => undefined);
  return () => Buffer.concat(chunks).toString("utf8").slice(0, maxCommandOutputBytes);
}
