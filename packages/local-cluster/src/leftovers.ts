/** Removing what a crashed cluster left, by its ledger alone: no process is ended that is not, by pid and start time, the recorded one. */
import { existsSync, readFileSync, realpathSync } from "node:fs";
import { MeshError } from "@fairway/runtime";
import { removeCgroups } from "./container/cgroups.ts";
import { Ledger, processStartTime, readLedger } from "./ledger.ts";
import { deleteNamespace, namespacePath } from "./network/namespaces.ts";

export interface Leftovers {
  readonly processes: number;
  readonly namespaces: number;
  readonly cgroups: number;
}

/** A killed process is gone, and out of its cgroup, a moment after the signal. */
const tries = 100;
const pauseMs = 20;

/**
 * Removes processes, namespaces and cgroups of a run that ended without cleaning up; mounts live in namespaces of their own and go
 * with their processes. Throws LOCAL_CLUSTER_STILL_RUNNING when the run has not ended.
 */
export async function destroyLeftovers(stateDir: string): Promise<Leftovers> {
  const content = existsSync(stateDir) ? readLedger(realpathSync(stateDir)) : undefined;
  if (content === undefined) return { processes: 0, namespaces: 0, cgroups: 0 };
  const { owner } = content;
  if (owner !== undefined && isAlive(owner)) {
    throw new MeshError("LOCAL_CLUSTER_STILL_RUNNING", `process ${owner.pid} still runs the cluster of ${stateDir}; stop it first`, {
      details: { pid: owner.pid },
    });
  }
  const alive = content.processes.filter(isAlive);
  for (const { pid } of alive) killTree(pid);
  await until(() => !alive.some(isAlive));
  const namespaces = content.namespaces.filter((name) => existsSync(namespacePath(name)));
  for (const name of namespaces) await deleteNamespace(name);
  const cgroups = content.cgroups.filter(existsSync);
  for (const path of cgroups) await until(() => removeCgroups(path));
  new Ledger(stateDir).close();
  return { processes: alive.length, namespaces: namespaces.length, cgroups: cgroups.length };
}

async function until(done: () => boolean): Promise<void> {
  for (let tried = 0; tried < tries && !done(); tried += 1) await new Promise((resolve) => setTimeout(resolve, pauseMs));
}

function isAlive({ pid, startTime }: { readonly pid: number; readonly startTime: string }): boolean {
  return processStartTime(pid) === startTime;
}

/** The launcher's death ends its container; the container's first process is told as well, should the tie have been cut. */
function killTree(pid: number): void {
  for (const target of [...childrenOf(pid), pid]) {
    try {
      process.kill(target, "SIGKILL");
    } catch {
      // It ended in between.
    }
  }
}

function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
      .trim()
      .split(" ")
      .filter((text) => text !== "")
      .map(Number);
  } catch {
    return [];
  }
}
