/**
 * Cgroups named as the kubelet's cgroupfs driver names them: `…/kubepods/besteffort/pod<uid>/<container id>`. They limit nothing;
 * a node agent finds the pod of a process by them through /proc/<pid>/cgroup. Where none can be made, that file alone is shown.
 */
import { mkdirSync, readdirSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { mustRun } from "../command.ts";
import type { Ledger } from "../ledger.ts";

export class PodCgroups {
  readonly #root: string | undefined;

  constructor(ledger: Ledger, cgroupRoot: string | undefined, cluster: string) {
    this.#root = cgroupRoot === undefined ? undefined : join(cgroupRoot, `fairway-${cluster}`);
    if (this.#root !== undefined) ledger.record({ kind: "cgroup", path: this.#root });
  }

  /** Makes a container's cgroup; the result is the file that a process writes its pid to, or undefined when cgroups cannot be made. */
  create(podUid: string, containerId: string): string | undefined {
    if (this.#root === undefined) return undefined;
    const path = join(this.#root, containerCgroup(podUid, containerId));
    mkdirSync(path, { recursive: true });
    return join(path, "cgroup.procs");
  }

  /** Removes a pod's cgroups; one whose processes are still ending stays until the cluster's end. */
  removePod(podUid: string): void {
    if (this.#root !== undefined) removeCgroups(join(this.#root, "kubepods", "besteffort", `pod${podUid}`));
  }

  [Symbol.dispose](): void {
    if (this.#root !== undefined) removeCgroups(this.#root);
  }
}

function containerCgroup(podUid: string, containerId: string): string {
  return join("kubepods", "besteffort", `pod${podUid}`, containerId);
}

/**
 * Covers /proc/<pid>/cgroup with what a cgroup of the container would show there; `directory` keeps the text. Only for a /proc that is
 * the cluster's own (`Machine.ownsProc`): every process that looks into it sees the cover. It goes with the process.
 * Throws LOCAL_CLUSTER_COMMAND_FAILED.
 */
export async function showCgroup(pid: number, { podUid, containerId, directory }: { podUid: string; containerId: string; directory: string }): Promise<void> {
  const file = join(directory, "cgroup");
  writeFileSync(file, `0::/${containerCgroup(podUid, containerId)}\n`);
  const target = `/proc/${pid}/cgroup`;
  // A program that has ended in the meantime has no file to cover, and no pod to be found by.
  await mustRun(["sh", "-c", 'mount --bind "$0" "$1" || [ ! -e "$1" ]', file, target]);
}

/** Removes a cgroup and those below it, deepest first. True when none is left. */
export function removeCgroups(path: string): boolean {
  try {
    for (const entry of readdirSync(path, { withFileTypes: true })) if (entry.isDirectory()) removeCgroups(join(path, entry.name));
    rmdirSync(path);
  } catch {
    // Gone already, or a process has not left it yet: the result says which.
  }
  try {
    readdirSync(path);
    return false;
  } catch {
    return true;
  }
}
