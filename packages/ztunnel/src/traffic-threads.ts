/**
 * The threads that carry traffic, as one. A pod is served by all of them or by none: each listens on the same ports of the pod, and the kernel
 * spreads connections over them (SO_REUSEPORT). A thread that dies takes the process with it: its pods would go on listening elsewhere, but
 * what it carried is lost, and nobody could say in which state it left the sockets of the kernel. The node's supervisor starts anew.
 */
import type { NetworkNamespace } from "@fairway/linux";
import type { CertificateSource, RevocationList } from "@fairway/pki";
import {
  type Clock,
  type LogFilter,
  type Logger,
  type MetricReading,
  messageOf,
  type PlainError,
  type ProfileRequest,
  plainError,
  type Watch,
} from "@fairway/runtime";
import type { MeshView } from "@fairway/xds";
import { CertificateDesk, type CertificateSession } from "./certificate-desk.ts";
import type { PodName, ProxyConfig } from "./config.ts";
import { ztunnelError } from "./failure.ts";
import { MeshDesk, type MeshSession } from "./mesh-desk.ts";
import { answerName } from "./mesh-names.ts";
import type { ListenerKind } from "./pod-proxy.ts";
import type { PodConnections, ThreadSettings, ThreadSpeech } from "./thread-protocol.ts";
import { holdThread, type SpawnThread, type TrafficThread } from "./traffic-thread.ts";

export interface TrafficThreadsOptions {
  readonly count: number;
  readonly settings: Omit<ThreadSettings, "thread" | "logFilter" | "revocations">;
  /** Undefined when nobody asks about revocation. */
  readonly revocations: Watch<readonly RevocationList[]> | undefined;
  readonly mesh: MeshView;
  readonly certificates: CertificateSource;
  readonly logFilter: LogFilter;
  readonly log: Logger;
  readonly clock: Clock;
  /** Takes whole lines, and says when they are written: a thread sends no more before that. */
  readonly write: (text: string, written: () => void) => void;
  readonly spawn: SpawnThread;
}

/** A pod to serve on every thread. */
export interface PodRequest {
  readonly uid: string;
  readonly pod: PodName;
  /** Undefined for the process's own network. Stays the caller's. */
  readonly namespace: NetworkNamespace | undefined;
  readonly kinds: readonly ListenerKind[];
  readonly overrides?: Partial<ProxyConfig>;
}

/** A pod as all threads serve it. */
export class ThreadedPod implements AsyncDisposable {
  readonly uid: string;
  readonly pod: PodName;
  readonly number: number;
  readonly #threads: readonly TrafficThread[];
  #stopped: Promise<void> | undefined;

  constructor(threads: readonly TrafficThread[], number: number, { uid, pod }: PodRequest) {
    this.uid = uid;
    this.pod = pod;
    this.number = number;
    this.#threads = threads;
  }

  /** What lives in it, on all threads. */
  async connections(): Promise<PodConnections> {
    const all = await Promise.all(this.#threads.map((thread) => thread.call("connections", { proxy: this.number })));
    return { inbound: all.flatMap(({ inbound }) => inbound), outbound: all.flatMap(({ outbound }) => outbound) };
  }

  /** Takes nothing new; resolves when the last connection ended. */
  async drain(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.call("drain", { proxy: this.number })));
  }

  /** Ends everything now, with `reason` in the log of each connection. Once: a second call waits for the first. */
  stop(reason: Error): Promise<void> {
    this.#stopped ??= this.#stop(plainError(reason, "ZTUNNEL_THREAD_FAILED"));
    return this.#stopped;
  }

  async #stop(reason: PlainError): Promise<void> {
    // A thread that is gone took its pods with it.
    await Promise.allSettled(this.#threads.map((thread) => thread.call("stop", { proxy: this.number, reason })));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop(ztunnelError("ZTUNNEL_POD_STOPPED", "the pod is no longer served"));
  }
}

export class TrafficThreads implements AsyncDisposable {
  readonly #options: TrafficThreadsOptions;
  readonly #meshDesk: MeshDesk;
  readonly #certificateDesk: CertificateDesk;
  readonly #revocations: Disposable | undefined;
  readonly #threads: TrafficThread[] = [];
  #nextPod = 1;

  private constructor(options: TrafficThreadsOptions) {
    this.#options = options;
    this.#meshDesk = new MeshDesk(options);
    this.#certificateDesk = new CertificateDesk(options);
    this.#revocations = options.revocations?.subscribe((lists) => {
      for (const thread of this.#threads) thread.tell({ kind: "revocations", lists });
    });
  }

  /** Resolves when every thread is up. Throws ZTUNNEL_THREAD_DIED with none left behind. */
  static async start(options: TrafficThreadsOptions): Promise<TrafficThreads> {
    const threads = new TrafficThreads(options);
    try {
      for (let number = 1; number <= options.count; number++) threads.#open(number);
      await Promise.all(threads.#threads.map(({ ready }) => ready));
    } catch (thrown) {
      await threads[Symbol.asyncDispose]();
      throw thrown;
    }
    return threads;
  }

  get count(): number {
    return this.#threads.length;
  }

  /** Rejects with ZTUNNEL_THREAD_DIED when a thread ended by itself. */
  get alive(): Promise<never> {
    return Promise.race(this.#threads.map(({ alive }) => alive));
  }

  /** Listens in the pod on every thread, or on none: throws what the first failing one says. */
  async startPod(request: PodRequest): Promise<ThreadedPod> {
    const { uid, pod, namespace, kinds, overrides = {} } = request;
    const started = new ThreadedPod(this.#threads, this.#nextPod++, request);
    const order = { proxy: started.number, uid, pod, namespaceFd: namespace?.fd, kinds, overrides };
    const outcomes = await Promise.allSettled(this.#threads.map((thread) => thread.call("start", order)));
    const failed = outcomes.find((outcome) => outcome.status === "rejected");
    if (failed === undefined) return started;
    await started[Symbol.asyncDispose]();
    throw failed.reason;
  }

  /** How many connections live in each pod, by the pod's number; pods without any may be missing. */
  async sizes(): Promise<ReadonlyMap<number, number>> {
    const total = new Map<number, number>();
    for (const sizes of await Promise.all(this.#threads.map((thread) => thread.call("sizes", undefined))))
      for (const [pod, size] of sizes) total.set(pod, (total.get(pod) ?? 0) + size);
    return total;
  }

  metrics(): Promise<readonly MetricReading[]> {
    return Promise.all(this.#threads.map((thread) => thread.call("metrics", undefined)));
  }

  /** Of thread `number`, from 1. */
  async profile(number: number, request: ProfileRequest): Promise<string> {
    const thread = this.#threads[number - 1];
    if (thread === undefined) throw ztunnelError("ZTUNNEL_THREAD_FAILED", `there is no thread ${number}`);
    return thread.call("profile", request);
  }

  /** Brings every thread to the filter as it is now. */
  followLogFilter(): void {
    const expression = this.#options.logFilter.toString();
    for (const thread of this.#threads) thread.tell({ kind: "log-filter", expression });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#revocations?.[Symbol.dispose]();
    await this.#meshDesk[Symbol.asyncDispose]();
    await this.#certificateDesk[Symbol.asyncDispose]();
    await Promise.all(this.#threads.map((thread) => thread[Symbol.asyncDispose]()));
  }

  #open(number: number): void {
    const { settings, revocations, spawn, logFilter, log, clock } = this.#options;
    const spawned = spawn({ ...settings, thread: number, revocations: revocations?.current, logFilter: logFilter.toString() });
    let mesh: MeshSession | undefined;
    let certificates: CertificateSession | undefined;
    const thread: TrafficThread = holdThread({
      spawned,
      number,
      clock,
      onSpeech: (speech) => this.#hear(thread, speech, mesh, certificates),
    });
    this.#threads.push(thread);
    mesh = this.#meshDesk.open((update) => thread.tell({ kind: "mesh", update }));
    certificates = this.#certificateDesk.open((news) => thread.tell({ kind: "certificate", news }));
    thread.alive.catch((thrown: unknown) => {
      mesh[Symbol.dispose]();
      certificates[Symbol.dispose]();
      log.error("a thread died", { thread: number, error: messageOf(thrown) });
    });
  }

  #hear(thread: TrafficThread, speech: ThreadSpeech, mesh: MeshSession | undefined, certificates: CertificateSession | undefined): void {
    switch (speech.kind) {
      case "ask-mesh":
        mesh?.ask(speech.question);
        break;
      case "forget-mesh":
        mesh?.forget(speech.keys);
        break;
      case "ask-name":
        thread.tell({ kind: "name", id: speech.id, answer: answerName(this.#options.mesh.snapshot, this.#options.settings.config.dns, speech.request) });
        break;
      case "ask-certificate":
        certificates?.ask(speech.identity);
        break;
      case "lines":
        this.#options.write(speech.text, () => thread.tell({ kind: "lines-written" }));
        break;
    }
  }
}
