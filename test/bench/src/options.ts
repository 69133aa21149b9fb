/** The command line of `npm run bench`. */
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { defaultEngineName, type EngineName, engineNames } from "@fairway/hbone";
import { type LoadGroup, loadGroups } from "./session.ts";
import { type StandingGroup, standingGroups } from "./standing.ts";

export interface BenchOptions {
  readonly help: boolean;
  readonly quick: boolean;
  readonly json: boolean;
  readonly repetitions: number;
  readonly load: ReadonlySet<LoadGroup>;
  readonly standing: ReadonlySet<StandingGroup>;
  /** All of them when undefined. */
  readonly arms: ReadonlySet<string> | undefined;
  readonly engine: EngineName;
  readonly netem: string | undefined;
  readonly delayMs: number | undefined;
  readonly peers: readonly string[];
  readonly whole: WholeOptions | undefined;
}

export interface WholeOptions {
  readonly threads: readonly string[];
  readonly programs: readonly string[];
  readonly seconds: number;
  readonly repetitions: number;
  readonly workloads: number;
  readonly json: boolean;
}

export const help: string = `npm run bench -- [options]
Direct, a plain TCP proxy, our HBONE pair and mutual TLS pairs of haproxy, nginx and stunnel, side by side in one run on this machine.

  --quick              shorter and smaller; for a look, not for a figure
  --repetitions N      3 unless told, 1 with --quick; load is measured in turns, medians [min..max] are printed
  --only A,B           of throughput, requests, paced, connects, handshakes (load); memory, burst (connections that stand)
  --arms A,B           of direct, plain, hbone, haproxy, nginx, stunnel, and the names of --peer
  --engine NAME        the engine of our pair: ${engineNames.join(" or ")}
  --netem DELAY        two network namespaces with this delay between the hops, added once to each round trip; or several words of
                       tc-netem(8). Needs root. Load only, unless --only says otherwise
  --delay 20ms         the same by a relay between the hops that holds bytes back for half of it each way, for a kernel without netem: the
                       protocols over TCP see the delay, TCP does not, and the relay is the limit of throughput
  --peer "NAME :: FIRST COMMAND :: SECOND COMMAND"
                       another pair beside ours; may be given several times. Commands are run by sh, pinned, and ended by signal
  --whole              the whole ztunnel with policy, metrics and original destination in the path, in namespaces (needs root), instead:
      --threads 1,2    numbers of worker threads to compare
      --workloads N    measure the memory of so many known workloads; 10000 unless told, 0 for none
      --seconds N      of each load; 4 unless told, 1 with --quick
      --program A,B    main.js of other builds of ztunnel to compare
  --json               the table as JSON on standard output
  --help

What may stand in the commands of --peer. The first accepts plain TCP and speaks TLS to the second, the second plain TCP to the application:
  {host}                         address to listen on             {to-host}                              address to connect to
  {echo} {sink} {source}         ports to listen on               {to-echo} {to-sink} {to-source}        where each of them leads
  {fresh}                        one more, for full handshakes without resumption; leads to {to-fresh}. Optional
  {ca} {cert} {key} {pem}        PEM files: root, own chain, its key, chain and key in one
  {folder}                       a folder of its own for whatever else it writes
Certificates carry a SPIFFE identity and no host name: a peer has to check the chain alone.

Examples:
  npm run bench -- --quick
  npm run bench -- --only throughput,paced --arms direct,hbone,haproxy --repetitions 5
  npm run bench -- --netem 20ms
  npm run bench -- --netem "delay 20ms 2ms loss 0.1%" --only paced
  npm run bench -- --arms direct,hbone --peer "mine :: mine -c {cert} -k {key} -a {ca} -l {host}:{echo}={to-host}:{to-echo} … :: mine -s …"
  npm run bench -- --arms direct,hbone,socat --only requests,connects --peer "socat ::
      for p in {echo}:{to-echo} {sink}:{to-sink} {source}:{to-source}; do
        socat TCP-LISTEN:\${p%:*},bind={host},fork,reuseaddr OPENSSL:{to-host}:\${p#*:},cafile={ca},cert={pem},commonname= & done; wait ::
      for p in {echo}:{to-echo} {sink}:{to-sink} {source}:{to-source}; do
        socat OPENSSL-LISTEN:\${p%:*},bind={host},fork,reuseaddr,cafile={ca},cert={pem} TCP:{to-host}:\${p#*:} & done; wait"
  npm run bench -- --whole --quick --threads 1,2
`;

const ourProgram = fileURLToPath(new URL("../../../packages/ztunnel/dist/main.js", import.meta.url));

export function readOptions(args: readonly string[]): BenchOptions {
  const { values } = parseArgs({
    args: [...args],
    options: {
      help: { type: "boolean", short: "h", default: false },
      quick: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      repetitions: { type: "string" },
      only: { type: "string" },
      arms: { type: "string" },
      engine: { type: "string", default: defaultEngineName },
      netem: { type: "string" },
      delay: { type: "string" },
      peer: { type: "string", multiple: true, default: [] },
      whole: { type: "boolean", default: false },
      threads: { type: "string", default: "1,2" },
      workloads: { type: "string", default: "10000" },
      seconds: { type: "string" },
      program: { type: "string", default: ourProgram },
    },
  });
  const { quick, json, netem } = values;
  const engine = engineNames.find((name) => name === values.engine);
  if (engine === undefined) throw new Error(`--engine takes ${engineNames.join(" or ")}, not ${values.engine}`);
  const only = values.only?.split(",");
  const unknown = only?.find((name) => ![...loadGroups, ...standingGroups].some((group) => group === name));
  if (unknown !== undefined) throw new Error(`--only takes ${[...loadGroups, ...standingGroups].join(", ")}, not ${unknown}`);
  const repetitions = values.repetitions === undefined ? (quick ? 1 : 3) : whole("--repetitions", values.repetitions);
  const delayMs = values.delay === undefined ? undefined : whole("--delay", values.delay.replace(/ms$/, ""));
  const standing = only === undefined && (netem ?? delayMs) !== undefined ? [] : standingGroups;
  return {
    help: values.help,
    quick,
    json,
    repetitions,
    load: new Set(loadGroups.filter((name) => only?.includes(name) ?? true)),
    standing: new Set(standing.filter((name) => only?.includes(name) ?? true)),
    arms: values.arms === undefined ? undefined : new Set(values.arms.split(",")),
    engine,
    netem,
    delayMs,
    peers: values.peer,
    whole: values.whole
      ? {
          threads: values.threads.split(","),
          programs: values.program.split(","),
          seconds: values.seconds === undefined ? (quick ? 1 : 4) : whole("--seconds", values.seconds),
          repetitions,
          workloads: whole("--workloads", values.workloads),
          json,
        }
      : undefined,
  };
}

function whole(option: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new Error(`${option} takes a whole number, not ${text}`);
  return value;
}
