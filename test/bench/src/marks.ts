/** What our pair has to reach: against the haproxy pair of the same run, or by itself. */
import { names } from "./arms.ts";
import { number, type Row, ratio } from "./report.ts";

interface Mark {
  /** A whole name of a figure, or how it begins where a count follows. */
  readonly figure: string;
  /** A multiple of the haproxy pair's figure, or a figure of our own. */
  readonly of: "haproxy" | "itself";
  readonly atLeast?: number;
  readonly atMost?: number;
  readonly unit?: string;
}

const marks: readonly Mark[] = [
  { figure: "up, 1 connection", of: "haproxy", atLeast: 0.8 },
  { figure: "down, 1 connection", of: "haproxy", atLeast: 0.8 },
  { figure: "up, 8 connections", of: "haproxy", atLeast: 0.8 },
  { figure: "down, 8 connections", of: "haproxy", atLeast: 0.8 },
  { figure: "CPU per 1000 requests", of: "haproxy", atMost: 0.7 },
  { figure: "new connections", of: "haproxy", atLeast: 6 },
  { figure: "open loop, 1000/s of 1 KB: added p50", of: "haproxy", atMost: 1.1 },
  { figure: "idle connections, to ", of: "itself", atMost: 8, unit: " KB" },
  { figure: "burst: resident after / before", of: "itself", atMost: 1.2 },
  { figure: "repeated bursts: connections lost", of: "itself", atMost: 0 },
  { figure: "repeated bursts: tunnels lost", of: "itself", atMost: 0 },
];

/** One line per mark: met, missed, or not measured. Of several figures that begin alike the last counts. */
export function markLines(rows: readonly Row[]): string[] {
  return marks.map(({ figure, of, atLeast, atMost, unit = "" }) => {
    const row = rows.findLast(({ name }) => name === figure || (figure.endsWith(" ") && name.startsWith(figure)));
    const value = row === undefined ? undefined : of === "haproxy" ? ratio(row, names.hbone, names.haproxy) : row.arms[names.hbone]?.median;
    const times = of === "haproxy" ? "x of haproxy" : unit;
    const wanted = atLeast === undefined ? `at most ${atMost}${times}` : `at least ${atLeast}${times}`;
    const name = row?.name ?? figure.trim();
    if (value === undefined || !Number.isFinite(value)) return `${name}: not measured (${wanted})`;
    const met = atLeast === undefined ? value <= (atMost ?? 0) : value >= atLeast;
    return `${name}: ${number(value)}${times}, ${wanted}: ${met ? "met" : "MISSED"}`;
  });
}
