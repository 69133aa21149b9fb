/**
 * Direct, plain TCP, our HBONE pair and a haproxy mTLS pair, side by side in one run on loopback.
 *   node dist/main.js [--quick] [--json] [--repetitions N] [--only throughput,requests,connects,memory] [--arms direct,hbone,…]
 */
import { parseArgs } from "node:util";
import { defaultEngineName, engineNames } from "@fairway/hbone";
import type { Arm, ArmName } from "./arms.ts";
import { directArm, haproxyArm, hboneArm, plainArm } from "./arms.ts";
import { killAll, pinned, startProgram } from "./child.ts";
import { newAuthority } from "./identities.ts";
import { machine } from "./machine.ts";
import type { Ports } from "./measures.ts";
import { markLines, summarize, table } from "./report.ts";
import { type GroupName, groupNames, Session } from "./session.ts";

const { values: options } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    repetitions: { type: "string" },
    only: { type: "string" },
    arms: { type: "string" },
    engine: { type: "string", default: defaultEngineName },
  },
});

async function main(): Promise<void> {
  const say = (text: string): void => void (options.json ? process.stderr : process.stdout).write(`${text}\n`);
  const repetitions = Number(options.repetitions ?? (options.quick ? 1 : 3));
  const groups = groupNames.filter((name) => options.only === undefined || options.only.split(",").includes(name));
  const engine = engineNames.find((name) => name === options.engine);
  if (engine === undefined) throw new Error(`--engine takes ${engineNames.join(" or ")}, not ${options.engine}`);
  const started = performance.now();
  await using stack = new Stack();

  const { child: backend, answer } = await startProgram("./backend.js", undefined, {});
  stack.add(async () => backend[Symbol.asyncDispose]());
  const backends = answer as Ports;
  const { child: load } = await startProgram("./load.js", undefined, { kind: "hello" });
  stack.add(async () => load[Symbol.asyncDispose]());

  const authority = newAuthority();
  const makers: readonly (readonly [string, () => Promise<Arm | undefined>])[] = [
    ["direct", async () => directArm(backends)],
    ["plain", () => plainArm(backends)],
    ["hbone", () => hboneArm(backends, authority, engine)],
    ["haproxy", () => haproxyArm(backends, authority)],
  ];
  const arms: Arm[] = [];
  for (const [name, make] of makers) {
    if (options.arms !== undefined && !options.arms.split(",").includes(name)) continue;
    const arm = await make();
    if (arm === undefined) {
      say("haproxy is not on this machine: that column is empty (Debian: apt-get install haproxy)");
      continue;
    }
    stack.add(() => arm.stop());
    arms.push(arm);
  }

  const session = new Session(load, arms, { quick: options.quick });
  await session.warmUp();
  if (groups.includes("memory")) await session.memory();
  for (let repetition = 1; repetition <= repetitions; repetition++) {
    say(`repetition ${repetition} of ${repetitions}, ${((performance.now() - started) / 1000).toFixed(0)} s`);
    await session.repetition(groups as readonly GroupName[]);
  }

  const rows = summarize(session.figures());
  const names: ArmName[] = ["direct", "plain TCP proxy", "HBONE pair", "haproxy mTLS pair"];
  say("");
  say(table(rows, names));
  say("");
  for (const line of markLines(rows)) say(line);
  say(
    `\n${machine()}${pinned ? "" : "; taskset is missing, nothing was pinned"}; medians of ${repetitions}, [min..max]; ${((performance.now() - started) / 1000).toFixed(0)} s`,
  );
  if (session.failures > 0) say(`${session.failures} connections failed during the run`);
  if (options.json)
    process.stdout.write(`${JSON.stringify({ machine: machine(), pinned, repetitions, failures: session.failures, rows, marks: markLines(rows) }, null, 2)}\n`);
}

/** What was opened, closed in reverse. */
class Stack implements AsyncDisposable {
  readonly #closers: (() => Promise<void>)[] = [];

  add(close: () => Promise<void>): void {
    this.#closers.push(close);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const close of this.#closers.reverse()) await close();
  }
}

process.on("exit", killAll);
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(1));
try {
  await main();
} catch (thrown) {
  console.error(thrown);
  process.exitCode = 1;
}
