/**
 * Cgroups named as the kubelet's cgroupfs driver names them: `…/kubepods/besteffort/pod<uid>/<container id>`. They limit nothing;
 * a node agent finds the pod of a process by them through /proc/<pid>/cgroup.
 */
import { mkdirSync, readdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
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
    const path = join(this.#root, "kubepods", "besteffort", `pod${podUid}`, containerId);
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
