#!/usr/bin/env node
/** `fairway-ztunnel [proxy|version|help]`: reads the environment, runs until told to stop. */
import { collectYoungObjectsEarly } from "@fairway/hbone";
import { createLogger, LogFilter, runProgram } from "@fairway/runtime";
import { runZtunnel } from "./app.ts";
import { logFormat, readConfig } from "./environment.ts";
import { version } from "./version.ts";

const usage = `Usage: fairway-ztunnel [command]

  proxy    run the node's tunnel (default); configured by environment variables
  version  print the version
  help     print this text
`;

switch (process.argv[2] ?? "proxy") {
  case "proxy":
    collectYoungObjectsEarly();
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
  return runProgram(createLogger("ztunnel", { format: logFormat(process.env) }), async ({ stop }) => {
    const config = readConfig(process.env);
    const logFilter = new LogFilter(config.logFilter);
    const log = createLogger("ztunnel", { format: config.logFormat, filter: logFilter });
    await runZtunnel({ config, log, logFilter, stop });
  });
}
