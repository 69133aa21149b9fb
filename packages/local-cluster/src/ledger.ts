/**
 * What a cluster has put on the machine, written to its state directory before (namespaces, cgroups) or right after (processes)
 * it exists, one JSON object a line. After a crash it is the only authority on what may be removed.
 */
import { appendFileSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";

export type LedgerEntry =
  | { readonly kind: "owner"; readonly pid: number; readonly startTime: string }
  | { readonly kind: "process"; readonly pid: number; readonly startTime: string }
  | { readonly kind: "namespace"; readonly name: string }
  | { readonly kind: "cgroup"; readonly path: string };

export interface LedgerContent {
  readonly owner: { readonly pid: number; readonly startTime: string } | undefined;
  readonly processes: readonly { readonly pid: number; readonly startTime: string }[];
  readonly namespaces: readonly string[];
  readonly cgroups: readonly string[];
}

/** Where a state directory keeps its ledger. */
function ledgerPath(stateDir: string): string {
  return join(stateDir, "ledger.jsonl");
}

export class Ledger {
  readonly #path: string;
  #closed = false;

  constructor(stateDir: string) {
    this.#path = ledgerPath(stateDir);
    mkdirSync(dirname(this.#path), { recursive: true });
  }

  /** Synchronous on purpose: the record must be on disk before the thing exists. */
  record(entry: LedgerEntry): void {
    if (!this.#closed) appendFileSync(this.#path, `${JSON.stringify(entry)}\n`);
  }

  /** A process that has just been started by us; one that is already gone needs no record. */
  recordProcess(pid: number, kind: "owner" | "process" = "process"): void {
    const startTime = processStartTime(pid);
    if (startTime !== undefined) this.record({ kind, pid, startTime });
  }

  /** Everything recorded is gone: forget it. */
  close(): void {
    this.#closed = true;
    rmSync(this.#path, { force: true });
  }
}

/** Reads a ledger; a torn last line (a crash while writing) is ignored. Undefined when there is none. */
export function readLedger(stateDir: string): LedgerContent | undefined {
  let text: string;
  try {
    text = readFileSync(ledgerPath(stateDir), "utf8");
  } catch {
    return undefined;
  }
  return parseLedger(text);
}

/** The pure part of reading: lines that are not entries are skipped. */
export function parseLedger(text: string): LedgerContent {
  const entries = text.split("\n").flatMap(parseEntry);
  return {
    owner: entries.find((entry) => entry.kind === "owner"),
    processes: entries.filter((entry) => entry.kind === "process"),
    namespaces: [...new Set(entries.filter((entry) => entry.kind === "namespace").map(({ name }) => name))],
    cgroups: [...new Set(entries.filter((entry) => entry.kind === "cgroup").map(({ path }) => path))],
  };
}

/**
 * Clock ticks since boot at which a process started (proc(5), stat field 22): with the pid it names one process for ever. Undefined for
 * one that is gone, or dead and only not yet collected by its parent.
 */
export function processStartTime(pid: number): string | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return undefined;
  }
  // The second field is the program's name in parentheses and may contain spaces.
  const [state, ...fields] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return state === "Z" || state === "X" ? undefined : fields.at(18);
}

function parseEntry(line: string): LedgerEntry[] {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return [];
  }
  if (typeof value !== "object" || value === null || !("kind" in value)) return [];
  const { kind, pid, startTime, name, path } = value as { kind: unknown; pid?: unknown; startTime?: unknown; name?: unknown; path?: unknown };
  if ((kind === "owner" || kind === "process") && typeof pid === "number" && Number.isInteger(pid) && pid > 1 && typeof startTime === "string") {
    return [{ kind, pid, startTime }];
  }
  if (kind === "namespace" && typeof name === "string" && /^[\w.-]+$/.test(name)) return [{ kind, name }];
  if (kind === "cgroup" && typeof path === "string" && path.startsWith("/sys/fs/cgroup/") && !path.includes("..")) return [{ kind, path }];
  return [];
}
