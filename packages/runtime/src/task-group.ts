/** Background work that somebody owns: failures are logged, and closing joins every task. */
import { MeshError } from "./error.ts";
import type { Logger } from "./log.ts";

export class TaskGroup implements AsyncDisposable {
  readonly #log: Logger;
  readonly #controller = new AbortController();
  readonly #running = new Set<Promise<void>>();

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Aborts when the group closes. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Starts `task`. A rejection with the group's own abort reason is the expected end; any other is logged with the task's name. */
  run(name: string, task: (signal: AbortSignal) => Promise<void>): void {
    const running: Promise<void> = task(this.signal)
      .catch((thrown: unknown) => {
        if (!this.signal.aborted || thrown !== this.signal.reason) this.#log.error(`${name} failed`, { error: MeshError.from(thrown, "RUNTIME_TASK_FAILED") });
      })
      .finally(() => this.#running.delete(running));
    this.#running.add(running);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#controller.abort(new MeshError("RUNTIME_CLOSED", "the task group closed"));
    await Promise.allSettled(this.#running);
  }
}
