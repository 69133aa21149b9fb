/** Medians, ratios and the table. */
import type { Figure } from "./figures.ts";

export interface Row {
  readonly name: string;
  readonly unit: string;
  readonly arms: Readonly<Record<string, Spread>>;
}

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2;
}

export function spread(values: readonly number[]): Spread {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

export function summarize(figures: readonly Figure[]): Row[] {
  return figures.map(({ name, unit, samples }) => ({ name, unit, arms: Object.fromEntries([...samples].map(([arm, values]) => [arm, spread(values)])) }));
}

/** The median of one arm as a multiple of another's; of differences below nothing there is none. */
export function ratio({ arms }: Row, arm: string, other: string): number | undefined {
  const [own, theirs] = [arms[arm]?.median, arms[other]?.median];
  return own === undefined || theirs === undefined || own < 0 || theirs <= 0 ? undefined : own / theirs;
}

/** A column for each arm, and one for the ratio of `subject` to each of `others`. */
export function table(rows: readonly Row[], arms: readonly string[], subject: string, others: readonly string[]): string {
  const shortName = (name: string): string => name.replace(/ (mTLS )?pair$/, "");
  const head = ["", "unit", ...arms, ...others.map((other) => `${shortName(subject)} / ${shortName(other)}`)];
  const lines = rows.map((row) => [
    row.name,
    row.unit,
    ...arms.map((arm) => cell(row.arms[arm])),
    ...others.map((other) => ratioCell(ratio(row, subject, other))),
  ]);
  const widths = head.map((text, column) => Math.max(text.length, ...lines.map((line) => (line[column] ?? "").length)));
  const print = (cells: readonly string[]): string =>
    cells.map((text, column) => (column < 2 ? text.padEnd(widths[column] ?? 0) : text.padStart(widths[column] ?? 0))).join("  ");
  return [print(head), print(widths.map((width) => "-".repeat(width))), ...lines.map(print)].join("\n");
}

export function cell(value: Spread | undefined): string {
  if (value === undefined) return "-";
  return value.min === value.max ? number(value.median) : `${number(value.median)} [${number(value.min)}..${number(value.max)}]`;
}

export function number(value: number): string {
  if (!Number.isFinite(value)) return "-";
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

function ratioCell(value: number | undefined): string {
  return value === undefined || !Number.isFinite(value) ? "-" : `${value.toFixed(2)}x`;
}
