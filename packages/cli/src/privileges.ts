/** Namespaces need root, or a user namespace in which we are root. */
import { spawn, spawnSync } from "node:child_process";
import { MeshError } from "@fairway/runtime";

const insideVariable = "FAIRWAY_USER_NAMESPACE";
const unshareArgs = ["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
/** Where `ip netns` keeps its handles is root's on the host; inside, it is ours. */
const prepare = 'mount -t tmpfs tmpfs /run && ip link set lo up && exec "$@"';

/**
 * Returns when this process may make namespaces. Without root it runs the same command again inside an unprivileged
 * user namespace and exits with its code; where the kernel forbids that, throws CLI_NEEDS_ROOT.
 */
export async function ensurePrivileges(): Promise<void> {
  if (process.getuid?.() === 0) return;
  if (spawnSync("unshare", [...unshareArgs, "true"]).status !== 0) {
    throw new MeshError(
      "CLI_NEEDS_ROOT",
      "this needs root or unprivileged user namespaces, and this kernel does not allow the latter: run it with sudo, or set the sysctl kernel.unprivileged_userns_clone=1 (on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0)",
    );
  }
  const child = spawn("unshare", [...unshareArgs, "sh", "-c", prepare, "sh", process.execPath, ...process.execArgv, ...process.argv.slice(1)], {
    stdio: "inherit",
    env: { ...process.env, [insideVariable]: "1" },
  });
  const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
  process.on("SIGINT", forward);
  process.on("SIGTERM", forward);
  const code = await new Promise<number>((resolve) => child.on("exit", (exit) => resolve(exit ?? 1)));
  process.exit(code);
}
