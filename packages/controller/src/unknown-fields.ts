/**
 * Fields that nobody knows. The definitions keep them (an object of a newer mesh must survive an older one), so they arrive here: often a
 * misspelt word whose absence would mean more than its author said.
 */

/** So much of what an author wrote is repeated to him; the rest is counted. */
const maxNamed = 10;
const maxProblemLength = 200;

/** What one part of an object may hold, and where that part is. */
export interface KnownFields {
  readonly path: string;
  readonly known: ReadonlySet<string>;
}

/** One sentence for each field that is not known, or for a value that is no object at all. What is absent has none. */
export function unknownFields(value: unknown, { path, known }: KnownFields): readonly string[] {
  if (value === undefined || value === null) return [];
  if (!isRecord(value)) return [`${path}: is not an object`];
  return Object.keys(value)
    .filter((field) => !known.has(field))
    .map((field) => `${path}.${field}: no such field`);
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** For a condition's message: bounded, whatever was written. */
export function listProblems(problems: readonly string[]): string {
  const clipped = problems.slice(0, maxNamed).map((problem) => (problem.length > maxProblemLength ? `${problem.slice(0, maxProblemLength)}…` : problem));
  const more = problems.length - clipped.length;
  return more > 0 ? `${clipped.join("; ")}; and ${more} more` : clipped.join("; ");
}
