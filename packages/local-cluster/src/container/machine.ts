/** What this machine grants, found out once at start: how a container gets its root, where cgroups can be made, whether users can be changed. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { MeshError } from "@fairway/runtime";
import { missingTool, runCommand, toolEnvironment } from "../command.ts";
import { insideUserNamespace } from "../user-namespace.ts";
import type { RootStrategy } from "./root-script.ts";

export interface Machine {
  readonly rootStrategy: RootStrategy;
  /** The directory below which pod cgroups are made; undefined when no hierarchy is writable. */
  readonly cgroupRoot: string | undefined;
  /** Whether /proc is this cluster's alone to mount in, so that it can show the pod of a process where no cgroup can be made. */
  readonly ownsProc: boolean;
  /** Whether a user without privileges can read the programs; otherwise users and capabilities of pods are not honoured. */
  readonly changesUsers: boolean;
  /** Directories every container must be able to read: Node, and the checkout whose programs are run. */
  readonly keep: readonly string[];
  /** Search path inside containers: Node's directory first. */
  readonly path: string;
}

/** Why a cluster cannot run here, or undefined. Cheap: tests ask before they skip. */
export function missingPrivilege(): string | undefined {
  if (process.platform !== "linux") return "the operating system is not Linux";
  if (process.geteuid?.() !== 0) return "root is needed to make network namespaces";
  const tool = missingTool();
  if (tool !== undefined) return tool;
  try {
    execFileSync("unshare", ["--net", "--mount", "true"], { stdio: "ignore", env: toolEnvironment() });
  } catch {
    return "the kernel refuses new network and mount namespaces";
  }
  return undefined;
}

/** Probes the machine. Throws LOCAL_CLUSTER_NOT_PERMITTED when clusters cannot run here at all. */
export async function probeMachine(workDir: string): Promise<Machine> {
  const missing = missingPrivilege();
  if (missing !== undefined) throw new MeshError("LOCAL_CLUSTER_NOT_PERMITTED", `a local cluster cannot run here: ${missing}`);
  const keep = [...new Set([dirname(dirname(process.execPath)), checkoutDirectory()])];
  const [rootStrategy, changesUsers] = await Promise.all([workingStrategy(workDir), canReadAsNobody(keep)]);
  return {
    rootStrategy,
    cgroupRoot: writableCgroupHierarchy(),
    ownsProc: insideUserNamespace(),
    changesUsers,
    keep,
    path: `${dirname(process.execPath)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
  };
}

async function workingStrategy(workDir: string): Promise<RootStrategy> {
  if (await overlayWorks(workDir, "lowerdir=/")) return "overlay";
  // Any directory without mounts below it will do.
  return (await overlayWorks(workDir, "userxattr,lowerdir=/etc")) ? "layers" : "bind";
}

async function overlayWorks(workDir: string, lower: string): Promise<boolean> {
  const probe = join(workDir, "overlay-probe");
  mkdirSync(probe, { recursive: true });
  const script =
    'mount -t tmpfs tmpfs "$0" && mkdir "$0/u" "$0/w" "$0/r" && mount -t overlay overlay -o "$1,upperdir=$0/u,workdir=$0/w" "$0/r" && touch "$0/r/.probe"';
  const { code } = await runCommand(["unshare", "--mount", "--propagation", "slave", "sh", "-c", script, probe, lower]);
  rmdirSync(probe);
  return code === 0;
}

async function canReadAsNobody(paths: readonly string[]): Promise<boolean> {
  const asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"];
  const { code } = await runCommand([...asNobody, "sh", "-c", `"$0" --version && ${paths.map((path) => `ls "${path}"`).join(" && ")}`, process.execPath]);
  return code === 0;
}

/** The directory whose node_modules holds what the programs import: the checkout, or wherever the package was installed. */
function checkoutDirectory(): string {
  const dependency = createRequire(import.meta.url).resolve("dns-packet");
  return dependency.slice(0, dependency.lastIndexOf("/node_modules/"));
}

/** Version 2 first, then the named v1 hierarchy that systemd uses, then any other: naming is all that is wanted of it. */
function writableCgroupHierarchy(): string | undefined {
  const mounts = readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, , type]) => type === "cgroup2" || type === "cgroup")
    .map(([, path = "", type, options = ""]) => ({ path, rank: type === "cgroup2" ? 0 : options.includes("name=") ? 1 : 2 }))
    .sort((a, b) => a.rank - b.rank);
  for (const { path } of mounts) {
    const probe = join(path, `fairway-probe-${process.pid}`);
    try {
      mkdirSync(probe);
      rmdirSync(probe);
      return path;
    } catch {
      // Not writable: the next hierarchy may be.
    }
  }
  return undefined;
}
