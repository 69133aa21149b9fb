/** The main thread's hold on one thread that carries traffic: calls with answers, news, and its end. */
import { type MessagePort, Worker } from "node:worker_threads";
import { type Clock, MeshError } from "@fairway/runtime";
import { ztunnelError } from "./failure.ts";
import { fromPlainError, type ThreadCall, type ThreadCalls, type ThreadSettings, type ToMain, type ToThread } from "./thread-protocol.ts";

/**
 * A thread's buffers are freed when its young objects are collected. By default a thread has 48 MB for these, far more than traffic needs: the
 * memory stays with it, and under bulk traffic full collections come first (docs/performance.md).
 */
const youngGenerationMb = 8;

/** A thread that runs `traffic-worker.ts` at the other end of `port`. */
export interface SpawnedThread {
  readonly port: MessagePort;
  /** Resolves with the reason when the thread ended by itself; never when it was told to. */
  readonly died: Promise<Error>;
  end(): Promise<void>;
}

export type SpawnThread = (settings: ThreadSettings) => SpawnedThread;

/** A real thread. It belongs to the network namespace of the thread that calls this. */
export const spawnThread: SpawnThread = (settings) => {
  const { port1, port2 } = new MessageChannel();
  const worker = new Worker(new URL("./thread-main.js", import.meta.url), {
    name: `traffic ${settings.thread}`,
    workerData: { port: port2, settings },
    transferList: [port2],
    // Descriptors are opened and closed by system calls of our own, too.
    trackUnmanagedFds: false,
    resourceLimits: { maxYoungGenerationSizeMb: youngGenerationMb },
  });
  const { promise: died, resolve } = Promise.withResolvers<Error>();
  let told = false;
  worker.once("error", (error) => resolve(error instanceof Error ? error : new MeshError("ZTUNNEL_THREAD_FAILED", String(error))));
  worker.once("exit", (code) => {
    if (!told) resolve(ztunnelError("ZTUNNEL_THREAD_FAILED", `the thread exited with code ${code}`));
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

/** What a thread says besides its answers. */
export type ThreadSpeech = Exclude<ToMain, { kind: "answer" | "failure" | "ready" }>;

const lastWordsMs = 1_000;

interface Waiting {
  readonly resolve: (answer: unknown) => void;
  readonly reject: (reason: Error) => void;
}

export class TrafficThread implements AsyncDisposable {
  readonly number: number;
  /** Rejects with ZTUNNEL_THREAD_DIED when the thread ended by itself. */
  readonly alive: Promise<never>;
  readonly #spawned: SpawnedThread;
  readonly #clock: Clock;
  readonly #onSpeech: (speech: ThreadSpeech) => void;
  readonly #waiting = new Map<number, Waiting>();
  readonly #ready = Promise.withResolvers<void>();
  #nextCall = 1;
  #failure: Error | undefined;

  constructor(options: { spawned: SpawnedThread; number: number; clock: Clock; onSpeech: (speech: ThreadSpeech) => void }) {
    const { spawned, number } = options;
    this.number = number;
    this.#spawned = spawned;
    this.#clock = options.clock;
    this.#onSpeech = options.onSpeech;
    spawned.port.on("message", (message: ToMain) => this.#receive(message));
    this.alive = spawned.died.then((cause) => {
      throw this.#fail(
        ztunnelError("ZTUNNEL_THREAD_DIED", `thread ${number}, which carries traffic, died: its connections are gone, and so must this process be`, cause),
      );
    });
    this.alive.catch(() => {});
    this.#ready.promise.catch(() => {});
  }

  /** Resolves when the thread can be called. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Throws what the thread answered with, or ZTUNNEL_THREAD_DIED. */
  call<Name extends ThreadCall>(name: Name, ask: ThreadCalls[Name]["ask"]): Promise<ThreadCalls[Name]["answer"]> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const id = this.#nextCall++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#waiting.set(id, { resolve, reject });
    this.tell({ kind: "call", id, call: { name, ask } } as ToThread);
    return promise as Promise<ThreadCalls[Name]["answer"]>;
  }

  tell(message: ToThread): void {
    this.#spawned.port.postMessage(message);
  }

  /** Its last words, and then its end; a thread that does not speak within a second is ended all the same. */
  async [Symbol.asyncDispose](): Promise<void> {
    const patience = new AbortController();
    await Promise.race([this.call("flush", undefined), this.#clock.sleep(lastWordsMs, patience)]).catch(() => {});
    patience.abort();
    this.#fail(ztunnelError("ZTUNNEL_POD_STOPPED", "this process is shutting down"));
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
      default:
        this.#onSpeech(message);
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
