/** The main thread's hold on another one: calls with answers, news, and its end. */
import { type MessagePort, Worker, type WorkerOptions } from "node:worker_threads";
import type { Clock } from "./clock.ts";
import { fromPlainError, MeshError } from "./error.ts";
import { type Callable, isReply, type ThreadReply } from "./thread-calls.ts";

/** A thread that serves calls at the other end of `port`. */
export interface SpawnedThread {
  readonly port: MessagePort;
  /** Resolves with the reason when the thread ended by itself; never when it was told to. */
  readonly died: Promise<Error>;
  end(): Promise<void>;
}

/**
 * A real thread that runs `module`, whose `workerData` is its end of the channel as `port`, and `settings`. It belongs to the network
 * namespace of the thread that calls this.
 */
export function startThread(module: URL, settings: unknown, options: Pick<WorkerOptions, "name" | "resourceLimits" | "trackUnmanagedFds">): SpawnedThread {
  const { port1, port2 } = new MessageChannel();
  const worker = new Worker(module, { ...options, workerData: { port: port2, settings }, transferList: [port2] });
  const { promise: died, resolve } = Promise.withResolvers<Error>();
  let told = false;
  worker.once("error", (error) => resolve(error instanceof Error ? error : new MeshError("RUNTIME_THREAD_ENDED", String(error))));
  worker.once("exit", (code) => {
    if (!told) resolve(new MeshError("RUNTIME_THREAD_ENDED", `the thread exited with code ${code}`));
  });
  return {
    port: port1,
    died,
    end: async () => {
      told = true;
      await worker.terminate();
    },
  };
}

const lastWordsMs = 1_000;

interface Waiting {
  readonly resolve: (answer: unknown) => void;
  readonly reject: (reason: Error) => void;
}

export interface CallableThreadOptions<Speech> {
  readonly spawned: SpawnedThread;
  readonly clock: Clock;
  /** Takes what the thread says besides its answers. */
  readonly onSpeech: (speech: Speech) => void;
  /** What its death is to whoever needs it. */
  readonly lost: (cause: Error) => Error;
  /** What a call hears once the thread was told to end. */
  readonly stopped: () => Error;
}

export class CallableThread<Calls extends Callable<Calls>, News extends { readonly kind: string }, Speech extends { readonly kind: string }>
  implements AsyncDisposable
{
  /** Rejects with what `lost` makes of the reason when the thread ended by itself. */
  readonly alive: Promise<never>;
  readonly #options: CallableThreadOptions<Speech>;
  readonly #waiting = new Map<number, Waiting>();
  readonly #ready = Promise.withResolvers<void>();
  #nextCall = 1;
  #failure: Error | undefined;

  constructor(options: CallableThreadOptions<Speech>) {
    const { port, died } = options.spawned;
    this.#options = options;
    port.on("message", (message: ThreadReply | Speech) => (isReply(message) ? this.#receive(message) : options.onSpeech(message)));
    this.alive = died.then((cause) => {
      throw this.#fail(options.lost(cause));
    });
    // Whoever needs to know awaits them; nobody has to.
    this.alive.catch(() => {});
    this.#ready.promise.catch(() => {});
  }

  /** Resolves when the thread can be called. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Throws what the thread answered with, or what ended it. */
  call<Name extends keyof Calls>(name: Name, ask: Calls[Name]["ask"]): Promise<Calls[Name]["answer"]> {
    return this.#call(name, ask) as Promise<Calls[Name]["answer"]>;
  }

  tell(news: News): void {
    this.#options.spawned.port.postMessage(news);
  }

  /** Its last words, and then its end; a thread that does not speak within a second is ended all the same. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { spawned, clock, stopped } = this.#options;
    const patience = new AbortController();
    await Promise.race([this.#call("flush", undefined), clock.sleep(lastWordsMs, patience)]).catch(() => {});
    patience.abort();
    this.#fail(stopped());
    await spawned.end();
    spawned.port.close();
  }

  #call(name: PropertyKey, ask: unknown): Promise<unknown> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const id = this.#nextCall++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#waiting.set(id, { resolve, reject });
    this.#options.spawned.port.postMessage({ kind: "call", id, call: { name, ask } });
    return promise;
  }

  #receive(reply: ThreadReply): void {
    switch (reply.kind) {
      case "ready":
        this.#ready.resolve();
        break;
      case "answer":
        this.#take(reply.id)?.resolve(reply.answer);
        break;
      case "failure":
        this.#take(reply.id)?.reject(fromPlainError(reply.error));
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
