/** What processes cost, from /proc. */
import { readFile } from "node:fs/promises";

/** USER_HZ is 100 on every Linux that Node runs on. */
const ticksPerSecond = 100;
const utimeField = 11;
const stimeField = 12;

/** CPU seconds used so far by all of them, user and system, every thread. */
export async function cpuSeconds(pids: readonly number[]): Promise<number> {
  let ticks = 0;
  for (const pid of pids) {
    const text = await readFile(`/proc/${pid}/stat`, "utf8");
    // The command in parentheses may hold spaces; fields are counted after it.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    ticks += Number(fields[utimeField]) + Number(fields[stimeField]);
  }
  return ticks / ticksPerSecond;
}

/** Resident kilobytes of all of them. */
export async function residentKb(pids: readonly number[]): Promise<number> {
  let kilobytes = 0;
  for (const pid of pids) {
    const status = await readFile(`/proc/${pid}/status`, "utf8");
    kilobytes += Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0);
  }
  return kilobytes;
}
