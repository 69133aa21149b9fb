/** The outermost frame of a program: signals in, exit code out, nothing lost in between. */

import { MeshError, messageOf } from "./error.ts";
import type { Logger } from "./log.ts";

export interface Program {
  /** Aborts on the first SIGTERM or SIGINT: drain and return. A second one ends the process at once. */
  readonly stop: AbortSignal;
}

/**
 * Runs `main` and exits: 0 when it returns, 1 when it throws.
 * An uncaught exception is logged with its stack and ends the process, because its state can no longer be trusted.
 */
export async function runProgram(log: Logger, main: (program: Program) => Promise<void>): Promise<never> {
  const controller = new AbortController();
  const onSignal = (signal: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(0);
    log.info("stopping", { signal });
    controller.abort(new MeshError("RUNTIME_STOPPED", `received ${signal}`));
  };
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
  process.on("uncaughtException", (thrown) => {
    log.error("uncaught exception", { error: messageOf(thrown), stack: thrown.stack });
    process.exit(1);
  });
  process.on("unhandledRejection", (thrown) => {
    log.error("unhandled rejection", { error: messageOf(thrown), stack: thrown instanceof Error ? thrown.stack : undefined });
    process.exit(1);
  });
  try {
    await main({ stop: controller.signal });
  } catch (thrown) {
    const error = MeshError.from(thrown, "RUNTIME_FAILED");
    log.error("the program failed", { code: error.code, error: messageOf(error) });
    process.exit(1);
  }
  process.exit(0);
}
