/**
 * The cluster without root: the same command inside a user namespace, in which it is root over a network, mounts and /run of its own
 * and over nothing of the machine. Whoever starts clusters, the command line or a test run, goes through here.
 */
import { spawn, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { MeshError } from "@fairway/runtime";
import { missingTool, systemPath, toolEnvironment } from "./command.ts";

const insideVariable = "FAIRWAY_USER_NAMESPACE";
const kernelWish = "this kernel does not let an ordinary user make namespaces";

/**
 * No pid namespace of its own: pids stay the machine's, so that ledgers and `fairway down` name the same processes from outside.
 * The death signal is set inside, since becoming root in the namespace clears it.
 */
const enter = ["--user", "--map-root-user", "--net", "--mount", "setpriv", "--pdeathsig=KILL", "sh", "-eu", "-c"];
/**
 * `ip netns` keeps its handles in /run, which is root's on the machine: inside it is ours. /proc is shared with the containers'
 * mount namespaces, so that what is mounted in it later appears in them.
 */
const prepare = `PATH="$PATH:${systemPath}"; mount -t tmpfs -o mode=755 tmpfs /run && mount --make-shared /proc && ip link set lo up`;
/** What a container's start and the mesh do later, tried once in a namespace that ends with the trial. */
const trials: readonly { readonly script: string; readonly missing: string }[] = [
  { script: "true", missing: "the kernel or a security profile refuses mounts in a user namespace (in a container: run it with --privileged)" },
  {
    script: 'unshare --mount --pid --fork --kill-child sh -c "mount -t proc proc /proc"',
    missing:
      "the kernel refuses to mount /proc in a user namespace, because parts of this machine's /proc are hidden (in a container: run it with --privileged)",
  },
  { script: "nft add table inet fairway-trial", missing: "nftables does not work in a user namespace here: load the kernel module nf_tables" },
];

/** True in a process whose /proc and /run are its cluster's own, by `asClusterRoot`. */
export function insideUserNamespace(): boolean {
  return process.env[insideVariable] !== undefined;
}

/**
 * How to run a command with what a cluster needs: as it is for root, otherwise inside a new user namespace. `missing` says in one
 * sentence why neither is possible.
 */
export function asClusterRoot(argv: readonly string[]): { readonly argv: readonly string[] } | { readonly missing: string } {
  if (process.geteuid?.() === 0) return { argv };
  const missing = missingForUserNamespace();
  if (missing !== undefined) return { missing };
  return { argv: ["unshare", ...enter, `${prepare}; export ${insideVariable}=1; exec "$@"`, "sh", ...argv] };
}

/**
 * Returns at once for root. Otherwise runs this very command again inside a user namespace and exits with its code. Throws
 * LOCAL_CLUSTER_NEEDS_ROOT where that is not possible.
 */
export async function becomeClusterRoot(): Promise<void> {
  if (process.geteuid?.() === 0) return;
  const again = asClusterRoot([process.execPath, ...process.execArgv, ...process.argv.slice(1)]);
  if ("missing" in again)
    throw new MeshError("LOCAL_CLUSTER_NEEDS_ROOT", `this needs root, or namespaces of an ordinary user; the latter fail: ${again.missing}`);
  const [file = "", ...args] = again.argv;
  const child = spawn(file, args, { stdio: "inherit", env: toolPathLast() });
  const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
  process.on("SIGINT", forward);
  process.on("SIGTERM", forward);
  const code = await new Promise<number>((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (exit) => resolve(exit ?? 1));
  });
  process.exit(code);
}

/** The words in front of a command that shall run where a cluster's process is; empty when that is the machine itself. */
export function enterWords(pid: number): readonly string[] {
  return insideUserNamespace() ? ["nsenter", "--preserve-credentials", "--user", "--net", "--mount", "--target", String(pid), "--"] : [];
}

function missingForUserNamespace(): string | undefined {
  if (process.platform !== "linux") return "the operating system is not Linux";
  const tool = missingTool();
  if (tool !== undefined) return tool;
  if (!succeeds(["--user", "--map-root-user", "--net", "--mount", "true"])) return `${kernelWish}: ${switchedOff()}`;
  return trials.find(({ script }) => !succeeds([...enter, `${prepare} && ${script}`]))?.missing;
}

function succeeds(args: readonly string[]): boolean {
  return spawnSync("unshare", args, { stdio: "ignore", env: toolPathLast() }).status === 0;
}

/** The setting that keeps ordinary users from making namespaces, as far as it can be read. */
function switchedOff(): string {
  const settings = [
    { path: "kernel/unprivileged_userns_clone", refuses: "0", advice: "set the sysctl kernel.unprivileged_userns_clone=1" },
    { path: "kernel/apparmor_restrict_unprivileged_userns", refuses: "1", advice: "set the sysctl kernel.apparmor_restrict_unprivileged_userns=0" },
    { path: "user/max_user_namespaces", refuses: "0", advice: "raise the sysctl user.max_user_namespaces" },
  ];
  const found = settings.find(({ path, refuses }) => readSetting(path) === refuses);
  return `${found?.advice ?? "a security profile (seccomp, SELinux) forbids it"}, or run it with sudo`;
}

function readSetting(path: string): string | undefined {
  try {
    return readFileSync(`/proc/sys/${path}`, "utf8").trim();
  } catch {
    return undefined;
  }
}

/** An ordinary login's path lacks the system directories; what it has keeps its order, so that `node` stays the pinned one. */
function toolPathLast(): Record<string, string | undefined> {
  return { ...toolEnvironment(), PATH: `${process.env["PATH"] ?? ""}:${systemPath}` };
}
