/** Environment variables, read once at start and checked as a whole. */
import { z } from "zod";
import { parseDuration } from "./duration.ts";
import { MeshError } from "./error.ts";

export { z };

/** Parses `env` by `schema`. Throws RUNTIME_BAD_CONFIG naming every variable that is wrong, not only the first. */
export function readEnvironment<Schema extends z.ZodType>(schema: Schema, env: Readonly<Record<string, string | undefined>>): z.output<Schema> {
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
