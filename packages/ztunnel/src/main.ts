#!/usr/bin/env node
/** `fairway-ztunnel [proxy|version|help]`: reads the environment, runs until told to stop. */
import { createLogger, LogFilter, runProgram } from "@fairway/runtime";
import { runZtunnel } from "./app.ts";
import { readConfig } from "./environment.ts";
import { version } from "./version.ts";

const usage = `Usage: fairway-ztunnel [command]

  proxy    run the node's tunnel (default); configured by environment variables
  version  print the version
  help     print this text
`;

switch (process.argv[2] ?? "proxy") {
  case "proxy":
    await runProxy();
    break;
  case "version":
    process.stdout.write(`${version.version}\n`);
    break;
  case "help":
  case "--help":
    process.stdout.write(usage);
    break;
  default:
    process.stderr.write(usage);
    process.exitCode = 2;
}

async function runProxy(): Promise<never> {
  // The configuration says how to log; until it is read, problems are told in the default way.
  return runProgram(createLogger("ztunnel"), async ({ stop }) => {
    const config = readConfig(process.env);
    const logFilter = new LogFilter(config.logFilter);
    const log = createLogger("ztunnel", { format: config.logFormat, filter: logFilter });
    await runZtunnel({ config, log, logFilter, stop });
  });
}
