/**
 * One client of the server: what is sent when, across types. The order is the safety of the mesh (policy before addresses):
 *
 *   upserts of a type wait until every earlier type's upserts of the same or an older batch were answered,
 *   removals of a type wait until every later type has nothing left to send and nothing unanswered, and until every earlier type's
 *   upserts of the same or an older batch were answered: those may let go of what is removed.
 *
 * A cluster that is sent has its endpoints sent again after it: whoever makes a new cluster of it waits for them (waypoint contract 4.4).
 * A rejected answer counts as an answer: such a client denies what it does not know. A client that never answers keeps its old
 * state; after a while its stream is ended, so that it starts over.
 */
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse } from "@fairway/protocol";
import { clusterTypeUrl, endpointTypeUrl } from "@fairway/protocol";
import type { Clock } from "@fairway/runtime";
import type { ResourceSource } from "./mesh-source.ts";
import { acknowledgement } from "./subscription.ts";
import { type TypeBatch, TypeSession } from "./type-session.ts";

export interface XdsTypeStatus {
  readonly sentNonce: string;
  readonly ackedNonce: string;
  /** Wall time of the last response. */
  readonly sentAt: number;
  readonly lastError: string | undefined;
  /** Resources the client refused and still refuses, with its reason. */
  readonly rejected: ReadonlyMap<string, string>;
}

export interface SessionEnvironment {
  readonly clock: Clock;
  readonly sources: readonly ResourceSource[];
  readonly identifier: string;
  /** Names that changed at the source of a type and were not handed to the sessions yet. */
  stale(typeUrl: string): ReadonlySet<string>;
  currentEpoch(): number;
  readonly limits: SessionLimits;
}

export interface SessionLimits {
  /** A client that does not answer a response for this long is cut off. */
  readonly answerTimeoutMs: number;
  /** Removals wait for the later types at most this long. */
  readonly removalPatienceMs: number;
  /** A proxy that is known to subscribe to every type gets this long to do so before it is served out of order. */
  readonly siblingGraceMs: number;
  readonly maxNamesPerType: number;
}

export interface SessionHooks {
  /** False when the client's protocol has no words for the response; it counts as answered then. */
  send(response: DeltaDiscoveryResponse): boolean;
  /** The client broke a limit or fell silent; the stream must end. */
  end(reason: "answer-timeout" | "too-many-names"): void;
  statusChanged(): void;
  /** A response was refused, or a part of it. */
  rejected(typeUrl: string): void;
}

const maxRejectedKept = 1_000;
const maxMessageKept = 4_096;

export class ClientSession {
  readonly #environment: SessionEnvironment;
  readonly #hooks: SessionHooks;
  readonly #types: readonly TypeSession[];
  readonly #status = new Map<string, XdsTypeStatus>();
  readonly #deadlines = new Map<TypeSession, Disposable>();
  #awaitsSiblings: boolean;
  #removalsDue = false;
  #patience: Disposable | undefined;
  #grace: Disposable | undefined;
  #nonce = 0;
  #closed = false;

  /** `awaitsSiblings`: this client will subscribe to every type, so the later ones wait for the earlier subscriptions. */
  constructor(environment: SessionEnvironment, hooks: SessionHooks, { awaitsSiblings }: { awaitsSiblings: boolean }) {
    this.#environment = environment;
    this.#hooks = hooks;
    this.#types = environment.sources.map((source) => new TypeSession(source));
    this.#awaitsSiblings = awaitsSiblings;
  }

  get types(): ReadonlyMap<string, XdsTypeStatus> {
    return this.#status;
  }

  /** False for a type that is not served. */
  handle(request: DeltaDiscoveryRequest): boolean {
    const type = this.#find(request.typeUrl);
    if (type === undefined || this.#closed) return this.#closed;
    this.#answer(type, request);
    if (!type.request(request, this.#environment.currentEpoch(), this.#environment.limits.maxNamesPerType)) {
      this.#hooks.end("too-many-names");
      return true;
    }
    this.#pump();
    return true;
  }

  changed(typeUrl: string, names: ReadonlySet<string>, epoch: number): void {
    this.#find(typeUrl)?.changed(names, epoch);
  }

  /** After all `changed` of one batch. */
  flush(): void {
    this.#pump();
  }

  close(): void {
    this.#closed = true;
    this.#patience?.[Symbol.dispose]();
    this.#grace?.[Symbol.dispose]();
    for (const deadline of this.#deadlines.values()) deadline[Symbol.dispose]();
    this.#deadlines.clear();
  }

  #pump(): void {
    if (this.#closed) return;
    let barrier = Number.POSITIVE_INFINITY;
    for (const [index, type] of this.#types.entries()) {
      const earlierMissing = this.#types.slice(0, index).some(({ subscribed }) => !subscribed);
      if (type.subscribed && earlierMissing && this.#awaitsSiblings) {
        this.#startGrace();
        break;
      }
      const laterBusy = this.#types.slice(index + 1).some((later) => (later.subscribed ? !later.idle : this.#awaitsSiblings));
      const removalBarrier = this.#removalsDue ? Number.POSITIVE_INFINITY : laterBusy ? Number.NEGATIVE_INFINITY : barrier;
      if (type.hasRemovals && removalBarrier < Number.POSITIVE_INFINITY) this.#startPatience();
      const stale = this.#environment.stale(type.source.typeUrl);
      const oldest = type.unsettled;
      const batch = type.take({ barrier, removalBarrier, stale });
      if (batch !== undefined) this.#send(type, batch, oldest);
      barrier = Math.min(barrier, type.unsettled);
    }
    if (!this.#types.some(({ hasRemovals }) => hasRemovals)) this.#stopPatience();
  }

  #send(type: TypeSession, batch: TypeBatch, epoch: number): void {
    const { clock, identifier, limits, currentEpoch } = this.#environment;
    const { typeUrl } = type.source;
    const nonce = String(++this.#nonce);
    type.sent(nonce, batch, epoch);
    if (typeUrl === clusterTypeUrl)
      this.#find(endpointTypeUrl)?.repeat(
        batch.resources.map(({ name }) => name),
        epoch,
      );
    const sent = this.#hooks.send({
      typeUrl,
      nonce,
      systemVersionInfo: String(currentEpoch()),
      resources: batch.resources.map(({ name, version, body, aliases }) => ({
        name,
        version,
        aliases,
        resource: { typeUrl, value: body },
        ttl: undefined,
        cacheControl: undefined,
      })),
      removedResources: batch.removed,
      controlPlane: { identifier },
    });
    if (!sent) {
      type.answered(acknowledgement({ typeUrl, nonce }));
      return;
    }
    if (this.#closed) return;
    this.#deadlines.set(
      type,
      clock.schedule(limits.answerTimeoutMs, () => this.#hooks.end("answer-timeout")),
    );
    const rejected = new Map(this.#status.get(typeUrl)?.rejected);
    for (const name of batch.removed) rejected.delete(name);
    this.#record(typeUrl, { sentNonce: nonce, sentAt: clock.now(), rejected });
  }

  #find(typeUrl: string): TypeSession | undefined {
    return this.#types.find(({ source }) => source.typeUrl === typeUrl);
  }

  #answer(type: TypeSession, request: DeltaDiscoveryRequest): void {
    const answer = type.answered(request);
    if (answer === undefined) return;
    this.#deadlines.get(type)?.[Symbol.dispose]();
    this.#deadlines.delete(type);
    const { typeUrl } = type.source;
    const rejected = new Map(this.#status.get(typeUrl)?.rejected);
    for (const name of answer.names) rejected.delete(name);
    if (answer.kind === "nack") {
      this.#hooks.rejected(typeUrl);
      for (const [name, reason] of answer.rejected) if (rejected.size < maxRejectedKept) rejected.set(name, reason.slice(0, maxMessageKept));
      this.#record(typeUrl, { lastError: answer.message.slice(0, maxMessageKept), rejected });
    } else {
      this.#record(typeUrl, { ackedNonce: request.responseNonce, rejected, ...(rejected.size === 0 ? { lastError: undefined } : {}) });
    }
  }

  #record(typeUrl: string, change: Partial<XdsTypeStatus>): void {
    const before = this.#status.get(typeUrl) ?? { sentNonce: "", ackedNonce: "", sentAt: 0, lastError: undefined, rejected: new Map() };
    this.#status.set(typeUrl, { ...before, ...change });
    this.#hooks.statusChanged();
  }

  #startPatience(): void {
    const { clock, limits } = this.#environment;
    this.#patience ??= clock.schedule(limits.removalPatienceMs, () => {
      this.#removalsDue = true;
      this.#pump();
    });
  }

  #stopPatience(): void {
    this.#patience?.[Symbol.dispose]();
    this.#patience = undefined;
    this.#removalsDue = false;
  }

  #startGrace(): void {
    const { clock, limits } = this.#environment;
    this.#grace ??= clock.schedule(limits.siblingGraceMs, () => {
      this.#awaitsSiblings = false;
      this.#pump();
    });
  }
}
