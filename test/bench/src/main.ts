/** `npm run bench`: direct, plain TCP, our HBONE pair and mutual TLS pairs of others, side by side in one run; or the whole ztunnel (`--whole`). */
import { readFileSync } from "node:fs";
import { type Arm, type ArmMaker, directArm, hboneArm, names, peerArm, plainArm, type Scene } from "./arms.ts";
import { killAll, pinned, startProgram } from "./child.ts";
import { Figures } from "./figures.ts";
import { Generator } from "./generator.ts";
import { newAuthority } from "./identities.ts";
import { machine } from "./machine.ts";
import { markLines } from "./marks.ts";
import type { Ports } from "./measures.ts";
import { type BenchOptions, help, readOptions } from "./options.ts";
import { customPeer, knownPeers } from "./peers.ts";
import { summarize, table } from "./report.ts";
import { fullTimes, quickTimes, Session } from "./session.ts";
import { bursts, describeSizes, guarded, idleMemory, type Sizes, sizes } from "./standing.ts";
import { runWhole } from "./whole.ts";
import { impair, loopback, redirectToRelay, relayPort, type Wire, wireBetween } from "./wire.ts";

/** Windows grow by round trips: with a delay between the hops they take longer. */
const delayedRampMs = 2_000;
type Say = (text: string) => void;

async function main(options: BenchOptions): Promise<void> {
  const say: Say = (text) => void (options.json ? process.stderr : process.stdout).write(`${text}\n`);
  const started = performance.now();
  const seconds = (): string => `${((performance.now() - started) / 1000).toFixed(0)} s`;
  const plan = sizes(options.quick, descriptorLimit());
  await using stack = new AsyncDisposableStack();

  const wire = await lay(options, stack);
  const { child: backend, answer } = await startProgram("./backend.js", undefined, { far: wire.far }, { namespace: wire.farSide });
  stack.use(backend);
  const { child: load } = await startProgram("./load.js", undefined, { kind: "hello" }, { namespace: wire.near });
  stack.use(load);
  const generator = new Generator(load);
  const scene: Scene = { backends: answer as Ports, authority: newAuthority(), wire, connections: plan.burst + spareConnections };
  const makers = makersOf(options, scene, say);
  const figures = new Figures();

  await measureStanding(options, makers, generator, figures, plan, say);
  if (options.load.size > 0) await measureLoad(options, makers, generator, figures, say, seconds);

  const rows = summarize(figures.all());
  const arms = makers.map(({ name }) => name);
  const others = arms.filter((name) => name !== names.hbone && name !== names.plain);
  say(`\n${table(rows, arms, names.hbone, arms.includes(names.hbone) ? others : [])}\n`);
  for (const line of markLines(rows)) say(line);
  const conditions = `${machine()}${pinned ? "; one hop a core" : "; taskset is missing, nothing was pinned"}${wireText(options)}`;
  if (options.standing.size > 0) say(`\n${describeSizes(plan)}`);
  say(`\n${conditions}; medians of ${options.repetitions}, [min..max]; ${seconds()}`);
  if (generator.failures > 0) say(`${generator.failures} connections or requests failed during the run`);
  if (options.json) {
    const { repetitions } = options;
    process.stdout.write(
      `${JSON.stringify({ machine: conditions, repetitions, sizes: plan, failures: generator.failures, rows, marks: markLines(rows) }, null, 2)}\n`,
    );
  }
}

function wireText({ netem, delayMs }: BenchOptions): string {
  return `${netem === undefined ? "" : `; netem ${netem}`}${delayMs === undefined ? "" : `; ${delayMs} ms for each round trip by a relay`}`;
}

async function lay({ netem, delayMs }: BenchOptions, stack: AsyncDisposableStack): Promise<Wire> {
  if (netem === undefined && delayMs === undefined) return loopback;
  const wire = stack.use(wireBetween());
  if (netem !== undefined) impair(wire, netem);
  if (delayMs !== undefined) {
    const { child } = await startProgram("./delay-relay.js", undefined, { port: relayPort, delayMs }, { namespace: wire.middle });
    stack.use(child);
    redirectToRelay(wire);
  }
  return wire;
}

/** Beyond those of a burst: what stands at its side and what is not closed yet. */
const spareConnections = 150;

function makersOf({ arms: wanted, engine, peers }: BenchOptions, scene: Scene, say: Say): ArmMaker[] {
  const makers = [directArm(scene), plainArm(scene), hboneArm(scene, engine)];
  for (const [key, find] of Object.entries(knownPeers)) {
    if (wanted?.has(key) === false) continue;
    const found = find();
    if ("peer" in found) makers.push(peerArm(found.peer, scene));
    else say(`missing: ${found.missing}`);
  }
  makers.push(...peers.map((text) => peerArm(customPeer(text), scene)));
  return makers.filter(({ key }) => wanted === undefined || wanted.has(key));
}

async function measureStanding(
  { standing }: BenchOptions,
  makers: readonly ArmMaker[],
  generator: Generator,
  figures: Figures,
  plan: Sizes,
  say: Say,
): Promise<void> {
  const proxies = makers.filter(({ key }) => key !== "direct");
  const failed = (name: string, thrown: unknown): void => say(`${name}: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
  if (standing.has("memory")) {
    say("idle connections");
    for (const maker of proxies) await guarded(maker.name, failed, () => idleMemory(maker, generator, figures, plan));
  }
  if (standing.has("burst")) {
    say("bursts");
    await bursts(proxies, generator, figures, plan, failed);
  }
}

async function measureLoad(
  { load, quick, netem, delayMs, repetitions }: BenchOptions,
  makers: readonly ArmMaker[],
  generator: Generator,
  figures: Figures,
  say: Say,
  seconds: () => string,
): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const arms: Arm[] = [];
  for (const maker of makers) {
    const arm = await maker.start();
    stack.defer(() => arm.stop());
    await generator.warmUp(arm);
    arms.push(arm);
  }
  const times = quick ? quickTimes : fullTimes;
  const session = new Session(generator, arms, figures, netem === undefined && delayMs === undefined ? times : { ...times, rampMs: delayedRampMs });
  for (let repetition = 1; repetition <= repetitions; repetition++) {
    say(`repetition ${repetition} of ${repetitions}, ${seconds()}`);
    await session.repetition(load);
  }
}

/** What a process of this user may open at most; Node and the pairs of others raise their soft limit to it. */
function descriptorLimit(): number {
  const text = readFileSync("/proc/self/limits", "utf8");
  const hard = /^Max open files\s+\S+\s+(\d+)/m.exec(text)?.[1];
  return hard === undefined ? Number.POSITIVE_INFINITY : Number(hard);
}

process.on("exit", killAll);
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(1));
try {
  const options = readOptions(process.argv.slice(2));
  if (options.help) process.stdout.write(help);
  else if (options.whole !== undefined) await runWhole(options.whole);
  else await main(options);
} catch (thrown) {
  console.error(thrown instanceof Error ? thrown.message : thrown, thrown instanceof Error && thrown.cause !== undefined ? thrown.cause : "");
  process.exitCode = 1;
}
