#!/usr/bin/env node
/** `fairway-ztunnel [proxy|version|help]`: reads the environment, runs until told to stop. */
import { collectYoungObjectsEarly } from "@fairway/hbone";
import { runProxyProgram } from "@fairway/runtime";
import { runZtunnel } from "./app.ts";
import { readConfig } from "./environment.ts";
import { version } from "./version.ts";

await runProxyProgram(
  { name: "ztunnel", purpose: "run the node's tunnel", version: version.version, prepare: () => collectYoungObjectsEarly(), readConfig, run: runZtunnel },
  process,
);
