#!/usr/bin/env node
/** The controller's program: configuration in, `startController` until a signal says stop. */
import { connectKube } from "@fairway/kube";
import { createLogger, createRegistry, LogFilter, runProgram, systemClock } from "@fairway/runtime";
import { startController } from "./app.ts";
import { readConfig } from "./config.ts";
import { untilAborted } from "./until-aborted.ts";

const env = process.env;
const bootLog = createLogger("controller", { format: env["LOG_FORMAT"] === "json" ? "json" : "plain" });

await runProgram(bootLog, async ({ stop }) => {
  const config = readConfig(env);
  const log = createLogger("controller", { format: config.logFormat, filter: new LogFilter(config.logFilter) });
  const registry = createRegistry();
  const client = connectKube({ log, clock: systemClock, registry, ...(config.kubeconfig === undefined ? {} : { kubeconfig: config.kubeconfig }) });
  try {
    await using _controller = await startController({ config, client, clock: systemClock, log, registry }, stop);
    await untilAborted(new Promise<void>(() => undefined), stop);
  } catch (thrown) {
    // Told to stop while it still waited for its inputs: an ordinary end.
    if (!stop.aborted) throw thrown;
  }
});
