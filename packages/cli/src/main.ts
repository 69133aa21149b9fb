#!/usr/bin/env node
/**
 * fairway: ask, explain, act. Each command is one entry here and one file beside. What raises clusters is loaded only by the commands that do:
 * those that ask a running mesh answer at once.
 */
import { homedir } from "node:os";
import { join } from "node:path";
import { errorCode, MeshError, messageOf } from "@fairway/runtime";
import yargs from "yargs";
import { hideBin } from "yargs/helpers";
import { defaultClusterName } from "./default-cluster-name.ts";
import { version } from "./version.ts";
import { waypointCommands } from "./waypoint/command.ts";

const home = process.env["FAIRWAY_HOME"] ?? join(homedir(), ".fairway");
const stopping = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    if (stopping.signal.aborted) process.exit(130);
    stopping.abort(new MeshError("CLI_STOPPED", `received ${signal}`));
  });
}

const nameOption = { type: "string", default: defaultClusterName, describe: "name of the cluster", coerce: clusterName } as const;
const mostNodes = 20;

/** The name is also a folder's: nothing else may be reached by it. */
function clusterName(text: string): string {
  if (/^[a-z][a-z0-9-]{0,19}$/.test(text)) return text;
  throw new MeshError(
    "CLI_BAD_NAME",
    `${JSON.stringify(text)} is not a name for a cluster; use up to 20 lower-case letters, digits and dashes, a letter first`,
  );
}

function nodeCount(count: number): number {
  if (Number.isInteger(count) && count >= 1 && count <= mostNodes) return count;
  throw new MeshError("CLI_BAD_NODES", `a cluster on one machine has 1 to ${mostNodes} nodes`);
}

await yargs(hideBin(process.argv))
  .scriptName("fairway")
  .usage("$0 <command>\n\nAn ambient service mesh: try it on this machine, ask it, change it.")
  .command(
    "up",
    "raise a cluster with the mesh on this machine",
    (y) =>
      y
        .option("name", nameOption)
        .option("nodes", { type: "number", default: 2, describe: "number of nodes", coerce: nodeCount })
        .option("foreground", { type: "boolean", default: false, describe: "stay attached until Ctrl-C" })
        .option("state", { type: "string", hidden: true })
        .example("$0 up", "two nodes, the mesh installed, a kubeconfig to use")
        .example("$0 up --nodes 3 --name lab", "a bigger one under another name"),
    async ({ name, nodes, foreground, state }) => {
      const { becomeClusterRoot } = await import("@fairway/local-cluster");
      await becomeClusterRoot();
      const { up, upInForeground } = await import("./lifecycle.ts");
      const stateFolder = state ?? join(home, name);
      if (foreground) await upInForeground({ stateFolder, nodes, name, stop: stopping.signal });
      else await up({ stateFolder, nodes, name });
    },
  )
  .command(
    "down",
    "take it away again",
    (y) => y.option("name", nameOption).example("$0 down", "stops every process and removes every namespace of fairway up"),
    async ({ name }) => {
      const { down } = await import("./lifecycle.ts");
      await down({ stateFolder: join(home, name), name });
    },
  )
  .command(
    "demo",
    "raise a mesh of two nodes, walk through it, and report what was observed",
    (y) =>
      y
        .option("hold", { type: "boolean", default: false, describe: "keep the cluster up afterwards, until Ctrl-C" })
        .option("json", { type: "boolean", default: false, describe: "one JSON object a line for each observation" })
        .example("$0 demo", "about a minute; exit code 0 means that every claim was observed")
        .example("$0 demo --hold", "then try it yourself with kubectl"),
    async ({ hold, json }) => {
      const { becomeClusterRoot } = await import("@fairway/local-cluster");
      await becomeClusterRoot();
      const { demo } = await import("./demo/demo.ts");
      process.exitCode = await demo({ stateFolder: join(home, `demo-${process.pid}`), hold, json, stop: stopping.signal });
    },
  )
  .command("waypoint", "opt into L7: create, list, explain and delete waypoints", waypointCommands)
  .command(
    "version",
    "print the version",
    (y) => y.option("json", { type: "boolean", default: false, describe: "for machines" }),
    ({ json }) => version({ json }),
  )
  .demandCommand(1, "Say what to do; fairway --help lists the commands.")
  .strict()
  .wrap(Math.min(100, process.stdout.columns ?? 100))
  .fail((message, thrown) => {
    if (thrown === undefined || thrown === null) process.stderr.write(`fairway: ${message}\n`);
    else process.stderr.write(`fairway: ${messageOf(thrown)} (${errorCode(thrown) ?? "CLI_USAGE"})\n`);
    process.exit(1);
  })
  .parseAsync();
// The cluster's sockets to its own nodes may still be closing; nothing is left that we wait for.
process.exit();
