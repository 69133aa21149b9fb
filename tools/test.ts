/**
 * The whole suite: the house's own checks, then every package's tests, then the end-to-end tests.
 * Prints what ran and closes with the sum; anything that could not run is named.
 *
 *   node tools/test.ts                  everything
 *   node tools/test.ts pki xds          only these suites
 *
 * Without root the tests run inside user namespaces, where the kernel grants them; where it does not, what needs them is skipped by name.
 */
import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

interface Suite {
  readonly name: string;
  readonly folder: string;
  readonly command: readonly string[];
}

interface Outcome {
  readonly suite: Suite;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: readonly string[];
  readonly seconds: number;
}

const root = join(import.meta.dirname, "..");
const checks: readonly Suite[] = [
  { name: "lint", folder: root, command: ["biome", "check", "."] },
  { name: "boundaries", folder: root, command: ["depcruise", "--config", ".dependency-cruiser.mjs", "packages"] },
  { name: "unused", folder: root, command: ["knip", "--no-config-hints"] },
  { name: "documents", folder: root, command: ["node", "tools/check-docs.ts"] },
  { name: "chart", folder: root, command: ["node", "tools/render-chart.ts", "--check"] },
];

/** Each decoder's share of a fixed budget; `npm run fuzz` takes longer. */
const fuzz: Suite = { name: "fuzz", folder: root, command: ["node", "tools/fuzz.ts", "--seconds", "25"] };
/** Rounds enough to see that a soak works; `npm run soak` takes longer. */
const soak: Suite = { name: "soak", folder: root, command: ["node", "test/bench/dist/soak/main.js", "--seconds", "20"] };

function packageSuites(group: string): Suite[] {
  return readdirSync(join(root, group), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => ({
      name: entry.name,
      folder: join(root, group, entry.name),
      manifest: JSON.parse(readFileSync(join(root, group, entry.name, "package.json"), "utf8")),
    }))
    .filter(({ manifest }) => manifest.scripts?.test !== undefined)
    .map(({ name, folder }) => ({ name, folder, command: ["ava"] }));
}

function count(output: string, pattern: RegExp): number {
  return [...output.matchAll(pattern)].reduce((sum, match) => sum + Number(match[1]), 0);
}

/** What ava printed about tests that did not run, each with the test it stands below. */
function skipsIn(output: string): { readonly names: string[]; readonly asPassed: number } {
  const names: string[] = [];
  let asPassed = 0;
  let test = "";
  for (const line of output.split("\n")) {
    const title = /^\s*[✔✖✘] (.+?)(?: \([\d.]+m?s\))?$/.exec(line)?.[1];
    if (title !== undefined) test = title;
    const found = /^(\s*ℹ )?.*?\bskipped( in part)?(?: \([^)]*\))?: (.+)$/i.exec(line);
    if (found === null || title !== undefined) continue;
    const [, logged, inPart, reason = ""] = found;
    names.push(logged === undefined || test === "" || reason.includes(test) ? reason : `${test}: ${reason}`);
    // A test that logs its skip and returns is a passed one to ava.
    if (logged !== undefined && inPart === undefined) asPassed += 1;
  }
  return { names, asPassed };
}

function run(suite: Suite): Promise<Outcome> {
  const started = performance.now();
  const [command = "", ...args] = suite.command;
  return new Promise((resolve) => {
    let output = "";
    const child = spawn(command, args, { cwd: suite.folder, stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, NO_COLOR: "1", FORCE_COLOR: "0" } });
    const collect = (chunk: Buffer): void => {
      output += chunk.toString();
    };
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    child.on("error", (error) => collect(Buffer.from(error.message)));
    child.on("close", (code) => {
      const tests = suite.command.includes("ava");
      const { names: skipped, asPassed } = tests ? skipsIn(output) : { names: [], asPassed: 0 };
      // When something failed, ava's own sum leaves out the passed ones: their lines are counted then.
      const summed = count(output, /^\s*(\d+) tests? passed/gm) || count(output.replaceAll(/^\s*✔ .*$/gm, "1 line"), /^(1) line$/gm);
      const counted = tests ? summed - asPassed : code === 0 ? 1 : 0;
      const broken = count(output, /^\s*(\d+) (?:tests? failed|uncaught exceptions?|unhandled rejections?)/gm);
      const failed = code === 0 ? broken : Math.max(1, broken);
      const seconds = (performance.now() - started) / 1000;
      process.stdout.write(
        `${failed === 0 ? "✔" : "✘"} ${suite.name.padEnd(14)} ${String(counted).padStart(5)} passed ${String(failed).padStart(3)} failed ${seconds.toFixed(1).padStart(7)} s\n`,
      );
      for (const name of skipped) process.stdout.write(`    skipped: ${name}\n`);
      if (failed > 0) process.stdout.write(`${output.trimEnd()}\n`);
      resolve({ suite, passed: counted, failed, skipped, seconds });
    });
  });
}

/** Runs suites with at most `width` at a time, keeping the order of the list for what starts next. */
async function runAll(suites: readonly Suite[], width: number): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  const waiting = [...suites];
  const worker = async (): Promise<void> => {
    for (let suite = waiting.shift(); suite !== undefined; suite = waiting.shift()) outcomes.push(await run(suite));
  };
  await Promise.all(Array.from({ length: width }, worker));
  return outcomes;
}

/** Why no cluster can be started here, or undefined. The package is asked only where root does not settle it. */
async function missingForClusters(): Promise<string | undefined> {
  if (process.geteuid?.() === 0) return undefined;
  const { asClusterRoot } = await import("@fairway/local-cluster");
  const entered = asClusterRoot(["true"]);
  return "missing" in entered ? entered.missing : undefined;
}

/** The suites as they are for root; otherwise each in a user namespace of its own, where that is possible. */
async function withClusterRoot(suites: readonly Suite[]): Promise<readonly Suite[]> {
  if (process.geteuid?.() === 0) return suites;
  const { asClusterRoot } = await import("@fairway/local-cluster");
  return suites.map((suite) => {
    const entered = asClusterRoot(suite.command);
    return "missing" in entered ? suite : { ...suite, command: entered.argv };
  });
}

function notRun(suite: Suite, reason: string): Outcome {
  process.stdout.write(`    skipped: ${suite.name}: ${reason}\n`);
  return { suite, passed: 0, failed: 0, skipped: [suite.name], seconds: 0 };
}

const wanted = process.argv.slice(2);
const chosen = (suites: readonly Suite[]): Suite[] => suites.filter((suite) => wanted.length === 0 || wanted.includes(suite.name));
const packages = chosen([...packageSuites("packages"), ...packageSuites("examples"), fuzz]);
const endToEnd = chosen([soak, ...packageSuites("test")]);
const missing = await missingForClusters();
if (missing !== undefined) process.stdout.write(`neither root nor namespaces of an ordinary user: ${missing}\n`);
const outcomes = [
  ...(await runAll([...chosen(checks), ...(await withClusterRoot(packages))], 2)),
  ...(missing === undefined ? await runAll(await withClusterRoot(endToEnd), 1) : endToEnd.map((suite) => notRun(suite, missing))),
];
const passed = outcomes.reduce((sum, outcome) => sum + outcome.passed, 0);
const failed = outcomes.reduce((sum, outcome) => sum + outcome.failed, 0);
const skipped = outcomes.reduce((sum, outcome) => sum + outcome.skipped.length, 0);
if (skipped > 0) process.stdout.write(`${skipped} skipped, named above\n`);
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;
