import { spawn } from "node:child_process";
import { once } from "node:events";
import test, { type ExecutionContext } from "ava";

const [program, log] = ["./program.js", "./log.js"].map((file) => new URL(file, import.meta.url).href);

/** A program of its own whose main is `main`; says "up" when it runs. */
function run(t: ExecutionContext, main: string): ReturnType<typeof spawn> {
  const source = `import { runProgram } from "${program}"; import { silentLogger } from "${log}";
    await runProgram(silentLogger, async ({ stop }) => { setInterval(() => {}, 1_000); console.log("up"); ${main} });`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", source], { stdio: ["ignore", "pipe", "inherit"] });
  t.teardown(() => child.kill("SIGKILL"));
  return child;
}

async function said(child: ReturnType<typeof spawn>, word: string): Promise<void> {
  let output = "";
  for await (const chunk of child.stdout?.iterator({ destroyOnReturn: false }) ?? []) {
    output += String(chunk);
    if (output.includes(word)) return;
  }
  throw new Error(`the program ended without a word of ${word}: ${output}`);
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  test(`the first ${signal} asks for an end, the second one is one, and no failure`, async (t) => {
    const child = run(t, 'stop.addEventListener("abort", () => console.log("leaving")); await new Promise(() => {});');
    const exited = once(child, "exit");
    await said(child, "up");
    child.kill(signal);
    await said(child, "leaving");
    child.kill(signal);
    t.deepEqual(await exited, [0, null]);
  });
}

for (const [what, main, code] of [
  ["returns", "return;", 0],
  ["throws", 'throw new Error("no");', 1],
  ["lets an exception go uncaught", 'setImmediate(() => { throw new Error("no"); }); await new Promise(() => {});', 1],
  ["lets a rejection go unhandled", 'void Promise.reject(new Error("no")); await new Promise(() => {});', 1],
] as const) {
  test(`a program that ${what} exits with ${code}`, async (t) => {
    const child = run(t, main);
    child.stdout?.resume();
    t.deepEqual(await once(child, "exit"), [code, null]);
  });
}
