/** The bench's side of the load generator: asks for load, counts what failed. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Arm } from "./arms.ts";
import type { Child } from "./child.ts";
import { concurrency, type LoadRequest, type LoadResult } from "./measures.ts";

const attempts = 100;
const attemptPauseMs = 50;

export class Generator {
  /** Connections and requests that failed in all measurements so far. */
  failures = 0;
  readonly #load: Child;

  constructor(load: Child) {
    this.#load = load;
  }

  async ask(request: LoadRequest): Promise<LoadResult> {
    const result = (await this.#load.ask(request)) as LoadResult;
    this.failures += result.failures;
    return result;
  }

  /** Compiled code, grown buffers and an open tunnel before anything counts; also waits until all of a pair listens. */
  async warmUp({ name, host, ports }: Arm): Promise<void> {
    const failures = this.failures;
    for (const port of new Set(Object.values(ports))) await this.#until(name, { kind: "probe", host, port });
    // The second hop may not listen yet, or its certificate not be taken.
    await this.#until(name, { kind: "connects", host, concurrency: 1, port: ports.echo, ms: 1 });
    await this.ask({ kind: "requests", host, connections: concurrency, port: ports.echo, ms: 500 });
    await this.ask({ kind: "connects", host, concurrency, port: ports.echo, ms: 300 });
    this.failures = failures;
  }

  async #until(name: string, request: LoadRequest & { readonly port: number }): Promise<void> {
    for (let attempt = 0; attempt < attempts; attempt++) {
      const { count, failures } = (await this.#load.ask(request)) as LoadResult;
      if (request.kind === "probe" ? count > 0 : failures === 0) return;
      await sleep(attemptPauseMs);
    }
    throw new Error(`${name}: nobody answers on port ${request.port}`);
  }
}
