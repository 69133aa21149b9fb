/**
 * The mesh as a thread knows it that does not hold the mesh: the answers to the questions that its connections asked. A decision that looks at
 * something else waits until the thread that holds the mesh has answered, and runs again; from then on that thread says when an answer
 * changes. A lookup is therefore never wrong and never guessed: it is known, or it is not known here yet.
 */
import {
  type AuthorizationPolicy,
  type PolicyKey,
  policyKey,
  type Service,
  type ServiceKey,
  type Snapshot,
  serviceKey,
  type Workload,
  type WorkloadUid,
} from "@fairway/model";
import { type Clock, MeshError, type Watch, Watched } from "@fairway/runtime";
import type { DecideOptions, MeshChange, MeshView } from "@fairway/xds";
import type { PodName } from "./config.ts";
import { ztunnelError } from "./failure.ts";
import { type MeshQuestion, questionKey } from "./mesh-question.ts";
import type { MeshAnswer, MeshUpdate } from "./mesh-update.ts";

/** Questions whose answers one thread holds; past it those not used for longest are given up, and asked again when needed. */
const defaultMaxHeld = 16_384;
/** Given up at once, so that a thread at its bound does not speak about every single one. */
const evictionShare = 16;
/** A thread that does not answer for so long is stuck, and what waits for it is refused. */
const answerTimeoutMs = 5_000;

export interface WorkingSetOptions {
  readonly ask: (question: MeshQuestion) => void;
  readonly forget: (keys: readonly string[]) => void;
  readonly nodeName: string | undefined;
  readonly clock: Clock;
  readonly maxHeld?: number;
  /** The thread that holds the mesh may have to wait for the control plane: what only names somebody in a log is then not waited for. */
  readonly onDemand?: boolean;
}

interface Held {
  readonly workloads: readonly Workload[];
  readonly services: readonly Service[];
  readonly applicable: { readonly policies: readonly AuthorizationPolicy[]; readonly missing: readonly PolicyKey[] };
  /** Looked at since the last search for room. */
  used: boolean;
}

interface Asked {
  readonly answered: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (reason: Error) => void;
}

/** Thrown by a lookup within a decision, and caught around it. */
class NotHeldError extends MeshError<"ZTUNNEL_NOT_HELD"> {
  readonly question: MeshQuestion;
  readonly key: string;

  constructor(question: MeshQuestion, key: string) {
    super("ZTUNNEL_NOT_HELD", `this thread does not hold the answer to ${key}; only a decision may ask for it`);
    this.question = question;
    this.key = key;
  }
}

export class WorkingSet implements MeshView {
  readonly #options: WorkingSetOptions;
  readonly #maxHeld: number;
  /** By question; least recently searched first. */
  readonly #held = new Map<string, Held>();
  readonly #asked = new Map<string, Asked>();
  readonly #workloads = new Map<WorkloadUid, Workload>();
  readonly #services = new Map<ServiceKey, Service>();
  readonly #policies = new Map<PolicyKey, AuthorizationPolicy>();
  readonly #synced = new Watched(false);
  readonly #changes: Watched<MeshChange>;
  /** The same window with answers that may be of too little knowledge. */
  readonly #labels: Snapshot;
  /** Questions that decisions under way waited for, with their number: never given up, or a decision might wait for ever. */
  readonly #pinned = new Map<string, number>();
  /** Given up, and still held until the other side confirms it. */
  readonly #leaving = new Set<string>();

  constructor(options: WorkingSetOptions) {
    this.#options = options;
    this.#maxHeld = options.maxHeld ?? defaultMaxHeld;
    this.#changes = new Watched({ snapshot: this.#lookups({}), policiesChanged: true, workloadsChanged: true });
    this.#labels = this.#lookups({ labels: true });
  }

  get changes(): Watch<MeshChange> {
    return this.#changes;
  }

  /** A window, not a copy: it always shows the latest state, and a lookup of what is not held throws ZTUNNEL_NOT_HELD. Use `decide`. */
  get snapshot(): Snapshot {
    return this.#changes.current.snapshot;
  }

  get synced(): Watch<boolean> {
    return this.#synced;
  }

  /** Questions answered here. */
  get size(): number {
    return this.#held.size;
  }

  /** Throws ZTUNNEL_MESH_UNANSWERED when what it needs does not come, or the signal's reason. */
  async decide<T>(decision: (snapshot: Snapshot) => T, { signal, labels = false }: DecideOptions): Promise<T> {
    const snapshot = labels && this.#options.onDemand === true ? this.#labels : this.snapshot;
    const waitedFor: string[] = [];
    try {
      for (;;) {
        signal.throwIfAborted();
        try {
          return decision(snapshot);
        } catch (thrown) {
          if (!(thrown instanceof NotHeldError)) throw thrown;
          waitedFor.push(thrown.key);
          this.#pin(thrown.key, 1);
          await this.#fetch(thrown, signal);
        }
      }
    } finally {
      for (const key of waitedFor) this.#pin(key, -1);
    }
  }

  async waitForWorkload(pod: PodName, { signal, timeoutMs }: { signal: AbortSignal; timeoutMs: number }): Promise<Workload> {
    const { clock, nodeName } = this.#options;
    const late = new AbortController();
    using _timer = clock.schedule(timeoutMs, () =>
      late.abort(new MeshError("XDS_WORKLOAD_UNKNOWN", `the control plane did not send the pod ${pod.namespace}/${pod.name} within ${timeoutMs} ms`)),
    );
    const waiting = AbortSignal.any([signal, late.signal]);
    for (;;) {
      const { current } = this.#changes;
      const workload = await this.decide((snapshot) => snapshot.workloadByName(pod, nodeName), { signal: waiting });
      if (workload !== undefined) return workload;
      await this.#changes.until((change) => change !== current, { signal: waiting });
    }
  }

  /** What the thread that holds the mesh says. */
  apply(update: MeshUpdate): void {
    for (const workload of update.workloads) this.#workloads.set(workload.uid, workload);
    for (const service of update.services) this.#services.set(serviceKey(service.namespace, service.hostname), service);
    for (const policy of update.policies) this.#policies.set(policyKey(policy.namespace, policy.name), policy);
    for (const uid of update.droppedWorkloads) this.#workloads.delete(uid);
    for (const key of update.droppedServices) this.#services.delete(key);
    for (const key of update.droppedPolicies) this.#policies.delete(key);
    for (const answer of update.answers) this.#held.set(answer.key, this.#hold(answer));
    for (const key of update.forgotten) {
      this.#held.delete(key);
      this.#leaving.delete(key);
    }
    if (update.policiesChanged || update.workloadsChanged) {
      this.#changes.set({ snapshot: this.#changes.current.snapshot, policiesChanged: update.policiesChanged, workloadsChanged: update.workloadsChanged });
    }
    this.#synced.set(update.synced);
    for (const { key } of update.answers) this.#settle(key, (asked) => asked.resolve());
    for (const { key, message } of update.failures) {
      this.#settle(key, (asked) => asked.reject(ztunnelError("ZTUNNEL_MESH_UNANSWERED", `the mesh could not be asked: ${message}`)));
    }
    if (this.#held.size - this.#leaving.size > this.#maxHeld) this.#makeRoom();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const asked of this.#asked.values()) asked.reject(ztunnelError("ZTUNNEL_POD_STOPPED", "this thread is shutting down"));
    this.#asked.clear();
  }

  #hold({ workloads, services, policies, missing }: MeshAnswer): Held {
    return {
      workloads: workloads.flatMap((uid) => this.#workloads.get(uid) ?? []),
      services: services.flatMap((key) => this.#services.get(key) ?? []),
      applicable: { policies: policies.flatMap((key) => this.#policies.get(key) ?? []), missing },
      used: true,
    };
  }

  async #fetch({ question, key }: NotHeldError, signal: AbortSignal): Promise<void> {
    let asked = this.#asked.get(key);
    if (asked === undefined) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      promise.catch(() => {});
      asked = { answered: promise, resolve, reject };
      this.#asked.set(key, asked);
      this.#options.ask(question);
    }
    const { answered } = asked;
    await new Promise<void>((resolve, reject) => {
      const onAbort = (): void => reject(signal.reason);
      const timer = this.#options.clock.schedule(answerTimeoutMs, () =>
        reject(ztunnelError("ZTUNNEL_MESH_UNANSWERED", `the mesh was not heard of within ${answerTimeoutMs} ms; is this process starved of CPU?`)),
      );
      signal.addEventListener("abort", onAbort, { once: true });
      answered.then(resolve, reject).finally(() => {
        timer[Symbol.dispose]();
        signal.removeEventListener("abort", onAbort);
      });
    });
  }

  #pin(key: string, by: 1 | -1): void {
    const users = (this.#pinned.get(key) ?? 0) + by;
    if (users === 0) this.#pinned.delete(key);
    else this.#pinned.set(key, users);
  }

  #settle(key: string, end: (asked: Asked) => void): void {
    const asked = this.#asked.get(key);
    if (asked === undefined) return;
    this.#asked.delete(key);
    end(asked);
  }

  /** Answers stay until the other side confirms that it follows them no more: what is held here is always kept up to date. */
  #makeRoom(): void {
    const leaving: string[] = [];
    const wanted = Math.ceil(this.#maxHeld / evictionShare);
    for (const [key, held] of this.#held) {
      if (leaving.length >= wanted) break;
      if (this.#leaving.has(key) || this.#pinned.has(key)) continue;
      this.#held.delete(key);
      this.#held.set(key, held);
      if (held.used) held.used = false;
      else leaving.push(key);
    }
    for (const key of leaving) this.#leaving.add(key);
    if (leaving.length > 0) this.#options.forget(leaving);
  }

  #lookup(question: MeshQuestion): Held {
    const key = questionKey(question);
    const held = this.#held.get(key);
    if (held === undefined) throw new NotHeldError(question, key);
    held.used = true;
    return held;
  }

  #lookups(kind: Pick<MeshQuestion, "labels">): Snapshot {
    const lookup = (question: MeshQuestion): Held => this.#lookup({ ...question, ...kind });
    const workload = (question: MeshQuestion): Workload | undefined => lookup(question).workloads[0];
    const service = (question: MeshQuestion): Service | undefined => lookup(question).services[0];
    const elsewhere = (): never => {
      throw new MeshError("ZTUNNEL_NOT_HELD", "this thread does not hold the mesh: it cannot be walked here");
    };
    return {
      workload: (uid) => workload({ kind: "workload", uid }),
      workloadByAddress: (network, ip) => workload({ kind: "workload-by-address", network, ip }),
      workloadByHostname: (namespace, hostname) => workload({ kind: "workload-by-hostname", namespace, hostname }),
      workloadByName: (pod, node) => workload({ kind: "workload-by-name", pod, node }),
      service: (key) => service({ kind: "service", service: key }),
      serviceByAddress: (network, ip, clientNamespace) => service({ kind: "service-by-address", network, ip, clientNamespace }),
      servicesAtAddress: (network, ip) => lookup({ kind: "services-at-address", network, ip }).services,
      serviceByHostname: (hostname, clientNamespace) => service({ kind: "service-by-hostname", hostname, clientNamespace }),
      endpoints: (key) => lookup({ kind: "endpoints", service: key }).workloads,
      policy: (key) => lookup({ kind: "policy", policy: key }).applicable.policies[0],
      policiesFor: ({ namespace, authorizationPolicies }) => lookup({ kind: "policies-for", subject: { namespace, authorizationPolicies } }).applicable,
      workloads: elsewhere,
      services: elsewhere,
      servicesNamed: elsewhere,
      policies: elsewhere,
      workloadsOnNode: elsewhere,
    };
  }
}
