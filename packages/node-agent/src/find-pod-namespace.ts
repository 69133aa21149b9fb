/** The network namespace of a running pod: found by the cgroups of its processes, as seen in the node's /proc (ztunnel contract 7.9). */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type NetworkNamespace, openNamespace, sameNamespace } from "@fairway/linux";

export interface FindOptions {
  readonly hostProc: string;
  /** Namespaces that are never a pod's: the node's own, the agent's own. */
  readonly exclude: readonly NetworkNamespace[];
}

/** A pod UID as cgroups spell it: `pod<uid>`, with dashes (cgroupfs) or underscores (systemd). */
const podInCgroup = /pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})(?![0-9a-f])/;

/** The pod UIDs in a /proc/<pid>/cgroup, with dashes. A nested cluster shows several: the innermost is last and is the process's own. */
export function podUidOf(cgroup: string): string | undefined {
  let innermost: { uid: string; at: number } | undefined;
  for (const line of cgroup.split("\n")) {
    for (let from = 0; ; ) {
      const found = podInCgroup.exec(line.slice(from));
      if (found?.[1] === undefined) break;
      from += found.index + found[0].length;
      if (innermost === undefined || from >= innermost.at) innermost = { uid: found[1].replaceAll("_", "-"), at: from };
    }
  }
  return innermost?.uid;
}

/** Field 22 of /proc/<pid>/stat: the start in clock ticks. The command may hold spaces and parentheses, so count from its end. */
export function startTimeOf(stat: string): number | undefined {
  const afterCommand = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const ticks = Number(afterCommand[19]);
  return afterCommand.length > 19 && Number.isFinite(ticks) ? ticks : undefined;
}

/**
 * The namespaces of `uids`, each that of the pod's oldest process; a pod without a process in a namespace of its own is absent.
 * The caller owns what is returned. One pass over /proc for all of them.
 */
export function findPodNamespaces(uids: ReadonlySet<string>, options: FindOptions): ReadonlyMap<string, NetworkNamespace> {
  const processes = new Map<string, { pid: string; startedAt: number }[]>();
  for (const pid of pidsOf(options.hostProc)) {
    const uid = podUidOf(read(join(options.hostProc, pid, "cgroup")));
    if (uid === undefined || !uids.has(uid)) continue;
    const startedAt = startTimeOf(read(join(options.hostProc, pid, "stat")));
    if (startedAt === undefined) continue;
    processes.set(uid, [...(processes.get(uid) ?? []), { pid, startedAt }]);
  }
  const found = new Map<string, NetworkNamespace>();
  for (const [uid, candidates] of processes) {
    for (const { pid } of candidates.sort((a, b) => a.startedAt - b.startedAt)) {
      const namespace = podNamespace(join(options.hostProc, pid, "ns/net"), options.exclude);
      if (namespace === undefined) continue;
      found.set(uid, namespace);
      break;
    }
  }
  return found;
}

function podNamespace(path: string, exclude: readonly NetworkNamespace[]): NetworkNamespace | undefined {
  try {
    const namespace = openNamespace(path);
    if (!exclude.some((other) => sameNamespace(other, namespace))) return namespace;
    namespace[Symbol.dispose]();
  } catch {
    // The process ended in between: another one of the pod may still run.
  }
  return undefined;
}

function pidsOf(hostProc: string): readonly string[] {
  return readdirSync(hostProc).filter((name) => /^\d+$/.test(name));
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
