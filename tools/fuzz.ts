/**
 * Fuzzes every decoder of the house: bytes that are nearly right must be read or refused in the decoder's own words, soon, and never
 * throw anything else. Prints the seed; the same seed, name and number make the same bytes.
 *
 *   node tools/fuzz.ts [--seconds 300] [--only name,name] [--seed N]       all of them, each its share of the time
 *   node tools/fuzz.ts --only name --seed N --input K                      one input, as it was reported
 */
import { parseArgs } from "node:util";
import { type FuzzEntry, isDeclared } from "./fuzz/entry.ts";
import { httpEntries } from "./fuzz/http-entries.ts";
import { identityEntries } from "./fuzz/identity-entries.ts";
import { meshEntries } from "./fuzz/mesh-entries.ts";
import { mutate, randomFrom } from "./fuzz/mutate.ts";
import { tunnelEntries } from "./fuzz/tunnel-entries.ts";

const { values: options } = parseArgs({
  options: { seconds: { type: "string", default: "300" }, only: { type: "string" }, seed: { type: "string" }, input: { type: "string" } },
});
/** CPU time of one input; none is longer than 16 KiB. */
const mostMsForOne = 1_000;
const stride = 0x9e3779b1;

interface Finding {
  readonly entry: string;
  readonly input: number;
  readonly what: string;
  readonly bytes: Buffer;
}

/** Errors that nobody caught, which end a process: the worst that an input can do. */
const escaped: unknown[] = [];
process.on("uncaughtException", (error) => void escaped.push(error));
process.on("unhandledRejection", (reason) => void escaped.push(reason));

function seedOf(seed: number, name: string): number {
  return [...name].reduce((sum, letter) => Math.imul(sum, 31) + (letter.codePointAt(0) ?? 0), seed);
}

/** What is wrong with an input, if anything is; one that is `right` may not even be refused. */
async function tryInput(entry: FuzzEntry, bytes: Buffer, right: boolean): Promise<string | undefined> {
  const before = process.cpuUsage();
  try {
    await entry.run(Buffer.from(bytes));
  } catch (thrown) {
    if (right || !isDeclared(thrown)) return `threw ${thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)}`;
  }
  const { user, system } = process.cpuUsage(before);
  const [loose] = escaped.splice(0);
  if (loose !== undefined) return `let escape ${loose instanceof Error ? (loose.stack ?? loose.message) : String(loose)}`;
  return (user + system) / 1_000 > mostMsForOne ? `took ${Math.round((user + system) / 1_000)} ms` : undefined;
}

async function fuzz(entry: FuzzEntry, seed: number, milliseconds: number): Promise<{ inputs: number; finding: Finding | undefined }> {
  const samples = entry.samples.map((sample) => Buffer.from(sample));
  const base = seedOf(seed, entry.name);
  const only = options.input === undefined ? undefined : Number(options.input);
  const ends = performance.now() + milliseconds;
  let input = only ?? 0;
  for (; only === undefined ? performance.now() < ends : input === only; input++) {
    // The samples themselves come first: they must be right, or nothing near them is tried.
    const right = samples[input];
    const bytes = right ?? mutate(samples, randomFrom(base + Math.imul(input, stride)));
    const what = await tryInput(entry, bytes, right !== undefined);
    if (what !== undefined) return { inputs: input + 1, finding: { entry: entry.name, input, what, bytes } };
    // Bytes of earlier turns may come late.
    if (input % 256 === 255) await new Promise((resolve) => setImmediate(resolve));
  }
  return { inputs: input, finding: undefined };
}

const every = [...tunnelEntries, ...httpEntries, ...meshEntries, ...identityEntries];
const names = options.only?.split(",");
const chosen = every.filter(({ name }) => names === undefined || names.includes(name));
const seed = options.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(options.seed);
process.stdout.write(`seed ${seed}, ${chosen.length} decoders, ${options.seconds} s\n`);
const findings: Finding[] = [];
for (const entry of chosen) {
  const { inputs, finding } = await fuzz(entry, seed, (Number(options.seconds) * 1_000) / chosen.length);
  process.stdout.write(`${finding === undefined ? "✔" : "✘"} ${entry.name.padEnd(24)} ${inputs} inputs\n`);
  if (finding !== undefined) findings.push(finding);
}
for (const { entry, input, what, bytes } of findings) {
  process.stdout.write(
    `\n${entry} ${what}\n  again: npm run fuzz -- --only ${entry} --seed ${seed} --input ${input}\n  bytes: ${bytes.toString("base64").slice(0, 2_000)}\n`,
  );
}
process.exit(findings.length === 0 ? 0 : 1);
