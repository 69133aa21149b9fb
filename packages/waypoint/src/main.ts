#!/usr/bin/env node
/** `fairway-waypoint [proxy|version|help]`: reads the environment, runs until told to stop. */
import { releaseMemoryAtRest, runProxyProgram, systemClock } from "@fairway/runtime";
import { runWaypoint } from "./app.ts";
import { readConfig } from "./environment.ts";
import { version } from "./version.ts";
import { boundYoungObjects } from "./young-objects.ts";

const prepare = (): void => {
  boundYoungObjects();
  releaseMemoryAtRest({ clock: systemClock });
};

await runProxyProgram({ name: "waypoint", purpose: "run the L7 proxy", version: version.version, prepare, readConfig, run: runWaypoint }, process);
