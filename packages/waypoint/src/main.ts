#!/usr/bin/env node
/** `fairway-waypoint [proxy|version|help]`: reads the environment, runs until told to stop. */
import { createLogger, LogFilter, runProgram } from "@fairway/runtime";
import { runWaypoint } from "./app.ts";
import { logFormat, readConfig } from "./environment.ts";
import { version } from "./version.ts";
import { boundYoungObjects } from "./young-objects.ts";

const usage = `Usage: fairway-waypoint [command]

  proxy    run the L7 proxy (default); configured by environment variables
  version  print the version
  help     print this text
`;

switch (process.argv[2] ?? "proxy") {
  case "proxy":
    boundYoungObjects();
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
  return runProgram(createLogger("waypoint", { format: logFormat(process.env) }), async ({ stop }) => {
    const config = readConfig(process.env);
    const logFilter = new LogFilter(config.logFilter);
    const log = createLogger("waypoint", { format: config.logFormat, filter: logFilter });
    await runWaypoint({ config, log, logFilter, stop });
  });
}
