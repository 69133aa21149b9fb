/** The main thread's hold on one thread that carries traffic: calls with answers, news, and its end. */
import { type MessagePort, Worker } from "node:worker_threads";
import type { Clock } from "@fairway/runtime";
import { waypointError } from "./failure.ts";
import { fromPlainError, type ThreadCall, type ThreadCalls, type ThreadSettings, type ToMain, type ToThread } from "./thread-protocol.ts";
import { trafficThreadMemory } from "./young-objects.ts";

/** A thread that runs `traffic-worker.ts` at the other end of `port`. */
export interface SpawnedThread {
  readonly port: MessagePort;
  /** Resolves with the reason when the thread ended by itself; never when it was told to. */
  readonly died: Promise<Error>;
  end(): Promise<void>;
}

export type SpawnThread = (settings: ThreadSettings) => SpawnedThread;

export const spawnThread: SpawnThread = (settings) => {
  const { port1, port2 } = new MessageChannel();
  const worker = new Worker(new URL("./thread-main.js", import.meta.url), {
    name: `traffic ${settings.thread}`,
    workerData: { port: port2, settings },
    transferList: [port2],
    resourceLimits: trafficThreadMemory,
  });
  const { promise: died, resolve } = Promise.withResolvers<Error>();
  let told = false;
  worker.once("error", (error) => resolve(error instanceof Error ? error : new Error(String(error))));
  worker.once("exit", (code) => {
    if (!told) resolve(new Error(`the thread exited with code ${code}`));
  });
  return {
    port: port1,
    died,
    end: async () => {
      told = true;
      await worker.terminate();
    },
  };
};

const lastWordsMs = 1_000;

interface Waiting {
  readonly resolve: (answer: unknown) => void;
  readonly reject: (reason: Error) => void;
}

export class TrafficThread implements AsyncDisposable {
  /** Rejects with WAYPOINT_WORKER_LOST when the thread ended by itself. */
  readonly alive: Promise<never>;
  readonly #spawned: SpawnedThread;
  readonly #clock: Clock;
  readonly #onLines: (text: string) => void;
  readonly #waiting = new Map<number, Waiting>();
  readonly #ready = Promise.withResolvers<void>();
  #nextCall = 1;
  #failure: Error | undefined;

  constructor(options: { spawned: SpawnedThread; number: number; clock: Clock; onLines: (text: string) => void }) {
    const { spawned, number } = options;
    this.#spawned = spawned;
    this.#clock = options.clock;
    this.#onLines = options.onLines;
    spawned.port.on("message", (message: ToMain) => this.#receive(message));
    this.alive = spawned.died.then((cause) => {
      throw this.#fail(
        waypointError("WAYPOINT_WORKER_LOST", `thread ${number}, which carries traffic, died: its requests are gone, and so must this process be`, { cause }),
      );
    });
    // Whoever needs to know awaits them; nobody has to.
    this.alive.catch(() => undefined);
    this.#ready.promise.catch(() => undefined);
  }

  /** Resolves when the thread can be called. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Throws what the thread answered with, or WAYPOINT_WORKER_LOST. */
  call<Name extends ThreadCall>(call: Name): Promise<ThreadCalls[Name]> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const id = this.#nextCall++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#waiting.set(id, { resolve, reject });
    this.tell({ kind: "call", id, call });
    return promise as Promise<ThreadCalls[Name]>;
  }

  tell(message: ToThread): void {
    this.#spawned.port.postMessage(message);
  }

  /** Its last words, and then its end; a thread that does not speak within a second is ended all the same. */
  async [Symbol.asyncDispose](): Promise<void> {
    const patience = new AbortController();
    await Promise.race([this.call("flush"), this.#clock.sleep(lastWordsMs, patience)]).catch(() => undefined);
    patience.abort();
    this.#fail(waypointError("WAYPOINT_STOPPED", "this process is shutting down"));
    await this.#spawned.end();
    this.#spawned.port.close();
  }

  #receive(message: ToMain): void {
    switch (message.kind) {
      case "ready":
        this.#ready.resolve();
        break;
      case "answer":
        this.#take(message.id)?.resolve(message.answer);
        break;
      case "failure":
        this.#take(message.id)?.reject(fromPlainError(message.error));
        break;
      case "lines":
        this.#onLines(message.text);
        this.tell({ kind: "lines-written" });
        break;
    }
  }

  #take(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    return waiting;
  }

  /** The first failure is the one that counts. */
  #fail(error: Error): Error {
    this.#failure ??= error;
    this.#ready.reject(this.#failure);
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
    return this.#failure;
  }
}
