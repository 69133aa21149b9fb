/** Programs run inside a network namespace: `nft` and `ip` own formats that are not worth speaking ourselves. */
import { type ChildProcess, spawn } from "node:child_process";
import { MeshError } from "@fairway/runtime";
import { inNamespace, type NetworkNamespace } from "./namespace.ts";

/** Where system programs live. The process's own PATH may put programs of the same name before them. */
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const defaultTimeoutMs = 10_000;
/** What is kept of a program's output; the rest is dropped. */
const outputLimit = 1_048_576;
/** How much of a program's own words goes into the error. */
const wordsLimit = 2_000;

export interface CommandOptions {
  readonly signal: AbortSignal;
  /** Written to its standard input. */
  readonly input?: string;
  /** 10 s unless told. */
  readonly timeoutMs?: number;
}

export interface CommandResult {
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a program in `namespace` and waits for its success. Throws LINUX_COMMAND_FAILED with the program's own words and its exit code
 * in `details.exitCode`, LINUX_COMMAND_MISSING, LINUX_COMMAND_TIMEOUT, or the signal's reason.
 */
export async function runIn(namespace: NetworkNamespace | undefined, argv: readonly [string, ...string[]], options: CommandOptions): Promise<CommandResult> {
  const { signal, input = "", timeoutMs = defaultTimeoutMs } = options;
  signal.throwIfAborted();
  const [program, ...args] = argv;
  const timeout = AbortSignal.timeout(timeoutMs);
  // The child belongs to the namespace of the thread that forks it, and spawning forks at once.
  const child = inNamespace(namespace, () => spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], env: { PATH: systemPath, LC_ALL: "C" } }));
  const output = { stdout: collect(child.stdout), stderr: collect(child.stderr) };
  // A program that ends without reading its input is judged by its exit code.
  child.stdin?.on("error", () => {});
  child.stdin?.end(input);
  const ending = await ended(child, AbortSignal.any([signal, timeout]));
  signal.throwIfAborted();
  const result = { stdout: output.stdout(), stderr: output.stderr() };
  const command = argv.join(" ");
  switch (ending.kind) {
    case "missing":
      throw new MeshError("LINUX_COMMAND_MISSING", `cannot run ${program}; is it installed?`, { cause: ending.cause });
    case "killed":
      throw new MeshError("LINUX_COMMAND_TIMEOUT", `${command} did not end within ${timeoutMs} ms`);
    case "exited":
      if (ending.code === 0) return result;
      throw new MeshError("LINUX_COMMAND_FAILED", `${command} failed (${ending.code ?? ending.signal}): ${words(result)}`, {
        details: { exitCode: ending.code, program },
      });
  }
}

type Ending =
  | { readonly kind: "exited"; readonly code: number | null; readonly signal: string | null }
  | { readonly kind: "missing"; readonly cause: Error }
  | { readonly kind: "killed" };

function ended(child: ChildProcess, signal: AbortSignal): Promise<Ending> {
  return new Promise((resolve) => {
    const onAbort = (): void => void child.kill("SIGKILL");
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    const settle = (ending: Ending): void => {
      signal.removeEventListener("abort", onAbort);
      resolve(ending);
    };
    child.once("error", (cause) => settle({ kind: "missing", cause }));
    child.once("close", (code, killedBy) => settle(signal.aborted ? { kind: "killed" } : { kind: "exited", code, signal: killedBy }));
  });
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  const chunks: Buffer[] = [];
  let length = 0;
  stream?.on("data", (chunk: Buffer) => {
    if (length < outputLimit) chunks.push(chunk);
    length += chunk.length;
  });
  return () => Buffer.concat(chunks).subarray(0, outputLimit).toString("utf8");
}

function words({ stdout, stderr }: CommandResult): string {
  const said = (stderr.trim() === "" ? stdout : stderr).trim().slice(0, wordsLimit);
  return said === "" ? "it said nothing" : said;
}
