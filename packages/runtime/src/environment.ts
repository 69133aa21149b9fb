/** Environment variables, read once at start and checked as a whole. */
import { z } from "zod";
import { parseDuration } from "./duration.ts";
import { MeshError } from "./error.ts";

export { z };

export type Variables = Readonly<Record<string, string | undefined>>;

/** Parses `env` by `schema`. Throws RUNTIME_BAD_CONFIG naming every variable that is wrong, not only the first. */
export function readEnvironment<Schema extends z.ZodType>(schema: Schema, env: Variables): z.output<Schema> {
  const result = schema.safeParse(env);
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
  throw new MeshError("RUNTIME_BAD_CONFIG", `the environment is not valid: ${problems.join("; ")}`, { details: { problems } });
}

/** A Go-style duration as milliseconds. */
export const durationVariable: z.ZodType<number, string> = z.string().transform((text, context) => {
  try {
    return parseDuration(text);
  } catch (thrown) {
    context.addIssue({ code: "custom", message: thrown instanceof Error ? thrown.message : String(thrown) });
    return z.NEVER;
  }
});

/** `true`/`false` (any case), `1`/`0`. */
export const booleanVariable: z.ZodType<boolean, string> = z
  .string()
  .transform((text) => text.trim().toLowerCase())
  .pipe(z.enum(["true", "false", "1", "0"], { error: "expected true or false" }))
  .transform((text) => text === "true" || text === "1");

/** A number of these at most and at least; undefined when it is not set. */
export function wholeNumberVariable(least: number, most: number): z.ZodType<number | undefined, string | undefined> {
  const error = `expected a whole number from ${least} to ${most}`;
  return z.string().regex(/^\d+$/, { error }).transform(Number).pipe(z.number().min(least, { error }).max(most, { error })).optional();
}

/** Variables with this prefix, the prefix taken off. */
export function prefixedVariables(variables: Variables, prefix: string): [string, string][] {
  return Object.entries(variables).flatMap(([name, value]): [string, string][] =>
    name.startsWith(prefix) && value !== undefined && name.length > prefix.length ? [[name.slice(prefix.length), value]] : [],
  );
}

/** Milliseconds to drain when Kubernetes kills after `graceSeconds` (ztunnel contract 2.2): of more than 10 s leave 5 s for the rest of the shutdown. */
export function drainWithin(graceSeconds: number | undefined): number {
  if (graceSeconds === undefined) return 5_000;
  return 1_000 * (graceSeconds > 10 ? graceSeconds - 5 : Math.max(graceSeconds - 1, 1));
}
