#!/usr/bin/env node
/** The node agent's process. */
import { connectKube } from "@fairway/kube";
import { createLogger, LogFilter, runProgram, systemClock } from "@fairway/runtime";
import { runAgent } from "./app.ts";
import { readConfig } from "./config.ts";

await runProgram(createLogger("node-agent"), async ({ stop }) => {
  const config = readConfig(process.env);
  const log = createLogger("node-agent", { format: config.logFormat, filter: new LogFilter(config.logLevel) });
  const client = connectKube({ log, ...(config.kubeconfig === undefined ? {} : { kubeconfig: config.kubeconfig }) });
  await runAgent({ config, client, clock: systemClock, log, stop });
});
