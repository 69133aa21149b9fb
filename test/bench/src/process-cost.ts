/** What processes cost, from /proc. A hop may be a shell with several programs under it: its descendants count. */
import { readFile } from "node:fs/promises";

/** USER_HZ is 100 on every Linux that Node runs on. */
const ticksPerSecond = 100;
/** utime, stime, and those of children that ended and were waited for. */
const timeFields = [11, 12, 13, 14];

/** CPU seconds used so far by all of them, user and system, every thread. */
export async function cpuSeconds(pids: readonly number[]): Promise<number> {
  let ticks = 0;
  for (const pid of pids) {
    for (const member of await withDescendants(pid)) {
      const text = await readProc(member, "stat", member === pid);
      // The command in parentheses may hold spaces; fields are counted after it.
      const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
      for (const field of timeFields) ticks += Number(fields[field] ?? 0);
    }
  }
  return ticks / ticksPerSecond;
}

/** Resident kilobytes of all of them. */
export async function residentKb(pids: readonly number[]): Promise<number> {
  let kilobytes = 0;
  for (const pid of pids) {
    for (const member of await withDescendants(pid)) {
      const status = await readProc(member, "status", member === pid);
      kilobytes += Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0);
    }
  }
  return kilobytes;
}

async function withDescendants(pid: number): Promise<number[]> {
  const children = (await readProc(pid, `task/${pid}/children`, false)).split(" ").filter((text) => text.trim() !== "");
  return [pid, ...(await Promise.all(children.map((child) => withDescendants(Number(child))))).flat()];
}

/** A hop that is gone is an error; a descendant of it may end at any time. */
async function readProc(pid: number, file: string, required: boolean): Promise<string> {
  try {
    return await readFile(`/proc/${pid}/${file}`, "utf8");
  } catch (thrown) {
    if (required) throw new Error(`a hop (process ${pid}) ended during the run`, { cause: thrown });
    return "";
  }
}
