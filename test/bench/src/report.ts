/** Medians, ratios and the table. */
import type { ArmName } from "./arms.ts";

export interface Figure {
  readonly name: string;
  readonly unit: string;
  /** Whether more of it is good. */
  readonly higherIsBetter: boolean;
  /** All repetitions, by arm. */
  readonly samples: Map<ArmName, number[]>;
}

export interface Row {
  readonly name: string;
  readonly unit: string;
  readonly higherIsBetter: boolean;
  readonly arms: Readonly<
    Partial<Record<ArmName, { readonly median: number; readonly min: number; readonly max: number; readonly toDirect?: number; readonly toHaproxy?: number }>>
  >;
}

/** The first marks against the haproxy pair in the same run. */
export const marks: readonly { readonly figure: string; readonly atLeast?: number; readonly atMost?: number }[] = [
  { figure: "up, 1 connection", atLeast: 0.6 },
  { figure: "down, 1 connection", atLeast: 0.6 },
  { figure: "up, 8 connections", atLeast: 0.6 },
  { figure: "down, 8 connections", atLeast: 0.6 },
  { figure: "CPU per 1000 requests", atMost: 1.3 },
  { figure: "new connections", atLeast: 4 },
];

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2;
}

export function summarize(figures: readonly Figure[]): Row[] {
  return figures.map(({ name, unit, higherIsBetter, samples }) => {
    const medianOf = (arm: ArmName): number | undefined => {
      const values = samples.get(arm);
      return values === undefined ? undefined : median(values);
    };
    const arms: Record<string, unknown> = {};
    for (const [arm, values] of samples) {
      const own = median(values);
      const ratio = (other: number | undefined): number | undefined => (other === undefined || other === 0 ? undefined : own / other);
      const [toDirect, toHaproxy] = [ratio(medianOf("direct")), ratio(medianOf("haproxy mTLS pair"))];
      arms[arm] = { median: own, min: Math.min(...values), max: Math.max(...values), toDirect, toHaproxy };
    }
    return { name, unit, higherIsBetter, arms };
  });
}

export function table(rows: readonly Row[], arms: readonly ArmName[]): string {
  const head = ["", "unit", ...arms, "HBONE / direct", "HBONE / haproxy"];
  const lines = rows.map((row) => {
    const hbone = row.arms["HBONE pair"];
    return [row.name, row.unit, ...arms.map((arm) => cell(row.arms[arm])), ratioCell(hbone?.toDirect), ratioCell(hbone?.toHaproxy)];
  });
  const widths = head.map((text, column) => Math.max(text.length, ...lines.map((line) => (line[column] ?? "").length)));
  const print = (cells: readonly string[]): string =>
    cells.map((text, column) => (column < 2 ? text.padEnd(widths[column] ?? 0) : text.padStart(widths[column] ?? 0))).join("  ");
  return [print(head), print(widths.map((width) => "-".repeat(width))), ...lines.map(print)].join("\n");
}

/** One line per mark: met, missed, or not measured. */
export function markLines(rows: readonly Row[]): string[] {
  return marks.map(({ figure, atLeast, atMost }) => {
    const wanted = atLeast === undefined ? `at most ${atMost}x` : `at least ${atLeast}x`;
    const ratio = rows.find(({ name }) => name === figure)?.arms["HBONE pair"]?.toHaproxy;
    if (ratio === undefined) return `${figure}: not measured (${wanted} of haproxy)`;
    const met = atLeast === undefined ? ratio <= (atMost ?? 0) : ratio >= atLeast;
    return `${figure}: ${ratio.toFixed(2)}x of haproxy, ${wanted}: ${met ? "met" : "MISSED"}`;
  });
}

function cell(value: { median: number; min: number; max: number } | undefined): string {
  if (value === undefined) return "-";
  return value.min === value.max ? number(value.median) : `${number(value.median)} [${number(value.min)}..${number(value.max)}]`;
}

function ratioCell(ratio: number | undefined): string {
  return ratio === undefined || !Number.isFinite(ratio) ? "-" : `${ratio.toFixed(2)}x`;
}

function number(value: number): string {
  if (!Number.isFinite(value)) return "-";
  if (value >= 1_000) return value.toFixed(0);
  return value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);
}
