/** Who probes pods on this node: the user of the kubelet's process, found by name, or what the configuration says. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export type ProbeSource =
  | { readonly kind: "scan" }
  /** Every process with a socket in the node's own network namespace. */
  | { readonly kind: "any-local" }
  | { readonly kind: "user"; readonly uid: number }
  /** Packets that carry this mark. */
  | { readonly kind: "mark"; readonly mark: number };

export type ResolvedProbeSource = Exclude<ProbeSource, { kind: "scan" }>;

/** Kubelets run as root nearly everywhere; so does the embedded cluster's, which has no process of its own name. */
const fallback: ResolvedProbeSource = { kind: "user", uid: 0 };

export function resolveProbeSource(source: ProbeSource, hostProc: string): ResolvedProbeSource {
  if (source.kind !== "scan") return source;
  for (const pid of pids(hostProc)) {
    const comm = read(join(hostProc, pid, "comm")).trim();
    if (!isKubelet(comm, read(join(hostProc, pid, "cmdline")))) continue;
    const uid = userOf(read(join(hostProc, pid, "status")));
    if (uid !== undefined) return { kind: "user", uid };
  }
  return fallback;
}

/** `kubelite` (MicroK8s) and k3s carry a kubelet inside; kubelite must say so. */
export function isKubelet(comm: string, commandLine: string): boolean {
  if (comm === "kubelite") return commandLine.includes("kubelet");
  return comm === "kubelet" || comm === "k3s" || comm.startsWith("k3s-");
}

/** The effective user in /proc/<pid>/status. */
export function userOf(status: string): number | undefined {
  const found = /^Uid:\s+\d+\s+(\d+)/m.exec(status)?.[1];
  return found === undefined ? undefined : Number(found);
}

function pids(hostProc: string): readonly string[] {
  try {
    return readdirSync(hostProc).filter((name) => /^\d+$/.test(name));
  } catch {
    return [];
  }
}

/** A process may end while it is looked at. */
function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
