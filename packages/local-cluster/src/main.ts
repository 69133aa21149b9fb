#!/usr/bin/env node
/** A local cluster in the foreground: starts it, prints how to reach it, and takes everything away on SIGTERM or SIGINT. */
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createLogger, LogFilter, MeshError, runProgram } from "@fairway/runtime";
import { startCluster } from "./cluster.ts";
import { destroyLeftovers } from "./leftovers.ts";
import { projectImages } from "./project-images.ts";
import { becomeClusterRoot } from "./user-namespace.ts";

const usage = `usage: fairway-local-cluster [--name fairway] [--nodes 2] [--state-dir <dir>] [--ipv4-only] [--api-port <port>] [--clean] [--log <filter>]
`;

const filter = new LogFilter();
const log = createLogger("local-cluster", { filter, write: (line) => void process.stderr.write(line) });

await runProgram(log, async ({ stop }) => {
  const { values } = parseArgs({
    options: {
      name: { type: "string", default: "fairway" },
      nodes: { type: "string", default: "2" },
      "state-dir": { type: "string" },
      "ipv4-only": { type: "boolean", default: false },
      "api-port": { type: "string" },
      clean: { type: "boolean", default: false },
      log: { type: "string", default: "info" },
      help: { type: "boolean", default: false },
    },
  });
  filter.apply(values.log);
  const stateDir = values["state-dir"] ?? join(tmpdir(), `fairway-cluster-${values.name}`);
  if (values.help) {
    process.stdout.write(usage);
    return;
  }
  if (values.clean) {
    const { processes, namespaces, cgroups } = await destroyLeftovers(stateDir);
    process.stdout.write(`removed ${processes} processes, ${namespaces} network namespaces, ${cgroups} cgroup trees\n`);
    return;
  }
  await becomeClusterRoot();
  await using cluster = await startCluster({
    name: values.name,
    nodes: count(values.nodes, "--nodes"),
    stateDir,
    images: projectImages(),
    families: values["ipv4-only"] ? ["ipv4"] : ["ipv4", "ipv6"],
    log,
    ...(values["api-port"] === undefined ? {} : { apiPort: count(values["api-port"], "--api-port") }),
    onProgress: (step) => log.info("starting", { step }),
  });
  process.stdout.write(`export KUBECONFIG=${cluster.kubeconfigPath}\n`);
  if (!stop.aborted) await new Promise((resolve) => stop.addEventListener("abort", resolve, { once: true }));
});

function count(text: string, flag: string): number {
  const number = Number(text);
  if (Number.isInteger(number) && number > 0) return number;
  throw new MeshError("LOCAL_CLUSTER_BAD_OPTIONS", `${flag} must be a whole number above zero, not "${text}"`);
}
