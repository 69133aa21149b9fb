/** Go-style durations ("250ms", "1h30m") as the reference's environment and flags write them. */
import { MeshError } from "./error.ts";

const unitMs: Readonly<Record<string, number>> = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Milliseconds of a Go-style duration. Throws RUNTIME_BAD_DURATION. */
export function parseDuration(text: string): number {
  if (text === "0") return 0;
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)];
  if (parts.length === 0 || parts.map((part) => part[0]).join("") !== text) {
    throw new MeshError("RUNTIME_BAD_DURATION", `"${text}" is not a duration; write for example 500ms, 10s or 1h30m`);
  }
  return parts.reduce((sum, part) => sum + Number(part[1]) * (unitMs[part[2] ?? ""] ?? 0), 0);
}
