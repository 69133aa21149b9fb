#!/usr/bin/env node
/** `fairway-ztunnel [proxy|version|help]`: reads the environment, runs until told to stop. */
import { collectYoungObjectsByBytes } from "@fairway/hbone";
import { trimAllocator } from "@fairway/linux";
import { releaseMemoryAtRest, runProxyProgram, systemClock } from "@fairway/runtime";
import { runZtunnel } from "./app.ts";
import { readConfig } from "./environment.ts";
import { version } from "./version.ts";

const prepare = (): void => {
  collectYoungObjectsByBytes();
  releaseMemoryAtRest({ clock: systemClock, afterwards: trimAllocator });
};

await runProxyProgram({ name: "ztunnel", purpose: "run the node's tunnel", version: version.version, prepare, readConfig, run: runZtunnel }, process);
