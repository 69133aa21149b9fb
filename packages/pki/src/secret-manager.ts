/**
 * The certificates of the identities that live here (ztunnel contract 4.5): one per identity, shared by all its pods, fetched by
 * priority, rotated at half its life, kept until it expires when the CA is away, forgotten with the last pod.
 *
 *   queued ──start──▶ running ──answer──▶ queued (rotation, background)
 *                        └────failure──▶ queued (retry after backoff)
 */
import type { SpiffeId } from "@fairway/model";
import { Backoff, type Clock, type Logger, MeshError, TaskGroup, type Watch, Watched } from "@fairway/runtime";
import type { CaClient } from "./ca-client.ts";
import { workloadCertificate } from "./certificate.ts";
import type { CertificateSource, CertificateState, FetchPriority, WorkloadCertificate } from "./certificate-source.ts";
import { buildCsr } from "./csr.ts";
import { generateKeyPair } from "./key.ts";

export interface SecretManagerOptions {
  readonly ca: CaClient;
  readonly clock: Clock;
  readonly log: Logger;
  /** `SECRET_TTL`. */
  readonly ttlMs?: number;
  readonly maxInFlight?: number;
  readonly maxIdentities?: number;
  /** Returns 0..1. */
  readonly random?: () => number;
}

export const defaultSecretTtlMs = 86_400_000;
const defaultMaxInFlight = 8;
const defaultMaxIdentities = 10_000;
/** Rotation falls between these shares of the life, so that a node's certificates do not all ask at once. */
const rotationShare = { earliest: 0.45, latest: 0.5 };
const retry = { initialMs: 1_000, maxMs: 150_000, jitter: 0.2 };
/** A retry never waits past the expiry of what is still held, but neither does it spin on it. */
const shortestRetryMs = 1_000;
const ranks: Readonly<Record<FetchPriority, number>> = { realtime: 0, warmup: 1, background: 2 };

interface Entry {
  readonly identity: SpiffeId;
  readonly backoff: Backoff;
  readonly forgotten: AbortController;
  readonly state: Watched<CertificateState>;
  running: boolean;
  priority: FetchPriority;
  dueAt: number;
  expiry: Disposable | undefined;
}

export class SecretManager implements CertificateSource, AsyncDisposable {
  readonly #options: Required<SecretManagerOptions>;
  readonly #entries = new Map<SpiffeId, Entry>();
  readonly #states = new Watched<ReadonlyMap<SpiffeId, CertificateState>>(new Map());
  readonly #tasks: TaskGroup;
  #inFlight = 0;
  #wakeup: Disposable | undefined;

  constructor(options: SecretManagerOptions) {
    this.#options = { ttlMs: defaultSecretTtlMs, maxInFlight: defaultMaxInFlight, maxIdentities: defaultMaxIdentities, random: Math.random, ...options };
    this.#tasks = new TaskGroup(options.log);
  }

  get states(): Watch<ReadonlyMap<SpiffeId, CertificateState>> {
    return this.#states;
  }

  async fetch(identity: SpiffeId, { signal, priority = "realtime" }: { signal: AbortSignal; priority?: FetchPriority }): Promise<WorkloadCertificate> {
    signal.throwIfAborted();
    const entry = this.#entry(identity, priority);
    const held = valid(entry.state.current, this.#options.clock.now());
    if (held !== undefined) return held;
    const either = AbortSignal.any([signal, entry.forgotten.signal]);
    const settled = await entry.state.until(({ kind }) => kind !== "initializing", { signal: either });
    const certificate = valid(settled, this.#options.clock.now());
    if (certificate !== undefined) return certificate;
    throw settled.kind === "unavailable" ? settled.error : new MeshError("PKI_CERTIFICATE_EXPIRED", `the certificate of ${identity} has expired`);
  }

  prefetch(identity: SpiffeId): void {
    try {
      this.#entry(identity, "warmup");
    } catch (thrown) {
      this.#options.log.warn("not fetching a certificate ahead of its use", { identity, error: MeshError.from(thrown, "PKI_PREFETCH_FAILED") });
    }
  }

  forget(identity: SpiffeId): void {
    const entry = this.#entries.get(identity);
    if (entry === undefined) return;
    this.#entries.delete(identity);
    entry.expiry?.[Symbol.dispose]();
    entry.forgotten.abort(new MeshError("PKI_FORGOTTEN", `the last pod of ${identity} left this node`));
    this.#publish();
    this.#pump();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#wakeup?.[Symbol.dispose]();
    const closed = new MeshError("PKI_CLOSED", "the certificates of this process were closed");
    for (const entry of this.#entries.values()) {
      entry.expiry?.[Symbol.dispose]();
      entry.forgotten.abort(closed);
    }
    this.#entries.clear();
    await this.#tasks[Symbol.asyncDispose]();
  }

  /** The entry of `identity`, made and queued when it is new, moved forward when it waits in a lower class. */
  #entry(identity: SpiffeId, priority: FetchPriority): Entry {
    const known = this.#entries.get(identity);
    if (known !== undefined) {
      const waitsForFirst = known.state.current.kind === "initializing" && !known.running;
      if (waitsForFirst && ranks[priority] < ranks[known.priority]) known.priority = priority;
      return known;
    }
    const { clock, maxIdentities, random, log } = this.#options;
    if (this.#tasks.signal.aborted) throw new MeshError("PKI_CLOSED", "the certificates of this process were closed");
    if (this.#entries.size >= maxIdentities) {
      throw new MeshError("PKI_TOO_MANY_IDENTITIES", `${maxIdentities} identities are in use on this node; no more are taken`);
    }
    const entry: Entry = {
      identity,
      backoff: new Backoff({ ...retry, random }),
      forgotten: new AbortController(),
      state: new Watched<CertificateState>({ kind: "initializing" }),
      running: false,
      priority,
      dueAt: clock.now(),
      expiry: undefined,
    };
    this.#entries.set(identity, entry);
    log.debug("identity added", { identity, priority });
    this.#publish();
    this.#pump();
    return entry;
  }

  /** Starts what is due, best class first and earliest due within it, and sets the alarm for the next. */
  #pump(): void {
    const { clock, maxInFlight } = this.#options;
    this.#wakeup?.[Symbol.dispose]();
    this.#wakeup = undefined;
    if (this.#tasks.signal.aborted) return;
    while (this.#inFlight < maxInFlight) {
      const next = this.#firstDue(clock.now());
      if (next === undefined) break;
      this.#start(next);
    }
    if (this.#inFlight >= maxInFlight) return;
    let earliest = Number.POSITIVE_INFINITY;
    for (const entry of this.#entries.values()) if (!entry.running) earliest = Math.min(earliest, entry.dueAt);
    if (earliest < Number.POSITIVE_INFINITY) this.#wakeup = clock.schedule(Math.max(0, earliest - clock.now()), () => this.#pump());
  }

  #firstDue(now: number): Entry | undefined {
    let best: Entry | undefined;
    for (const entry of this.#entries.values()) {
      if (entry.running || entry.dueAt > now) continue;
      const order = best === undefined ? -1 : ranks[entry.priority] - ranks[best.priority] || entry.dueAt - best.dueAt;
      if (order < 0) best = entry;
    }
    return best;
  }

  #start(entry: Entry): void {
    entry.running = true;
    this.#inFlight++;
    this.#tasks.run("fetching a certificate", async (closing) => {
      try {
        const certificate = await this.#request(entry, AbortSignal.any([closing, entry.forgotten.signal]));
        if (!entry.forgotten.signal.aborted) this.#succeed(entry, certificate);
      } catch (thrown) {
        if (!entry.forgotten.signal.aborted && !closing.aborted) this.#fail(entry, MeshError.from(thrown, "PKI_CA_UNAVAILABLE"));
      } finally {
        entry.running = false;
        this.#inFlight--;
        this.#pump();
      }
    });
  }

  async #request({ identity }: Entry, signal: AbortSignal): Promise<WorkloadCertificate> {
    const { ca, ttlMs, clock } = this.#options;
    const key = generateKeyPair();
    const answer = await ca.sign({ csr: buildCsr(identity, key), identity, ttlMs }, { signal });
    return workloadCertificate(answer, { identity, privateKey: key.privateKey, now: clock.now() });
  }

  #succeed(entry: Entry, certificate: WorkloadCertificate): void {
    const { clock, random, log } = this.#options;
    const share = rotationShare.earliest + (rotationShare.latest - rotationShare.earliest) * random();
    entry.backoff.reset();
    entry.priority = "background";
    entry.dueAt = Math.max(certificate.notBefore + (certificate.notAfter - certificate.notBefore) * share, clock.now() + shortestRetryMs);
    this.#set(entry, { kind: "available", certificate });
    log.debug("certificate fetched", { identity: entry.identity, serial: certificate.serialNumber, lifetimeMs: certificate.notAfter - clock.now() });
  }

  #fail(entry: Entry, error: MeshError): void {
    const { clock, log } = this.#options;
    const now = clock.now();
    const held = valid(entry.state.current, now);
    const delayMs = Math.min(entry.backoff.next(), retry.maxMs, held === undefined ? retry.maxMs : Math.max(shortestRetryMs, held.notAfter - now));
    entry.dueAt = now + delayMs;
    this.#set(entry, { kind: "unavailable", error, certificate: held });
    log.warn("certificate not fetched", { identity: entry.identity, error, retryInMs: Math.round(delayMs), stillValid: held !== undefined });
  }

  #set(entry: Entry, state: CertificateState): void {
    const { clock } = this.#options;
    const certificate = state.kind === "initializing" ? undefined : state.certificate;
    entry.expiry?.[Symbol.dispose]();
    entry.expiry = certificate === undefined ? undefined : clock.schedule(certificate.notAfter - clock.now(), () => this.#expire(entry, certificate));
    entry.state.set(state);
    this.#publish();
  }

  /** The held certificate ended before a new one came: whoever looks must see that, also between two retries. */
  #expire(entry: Entry, certificate: WorkloadCertificate): void {
    const { clock, log } = this.#options;
    // A timer is cut at the longest delay the platform knows (about 25 days).
    if (clock.now() < certificate.notAfter) {
      entry.expiry = clock.schedule(certificate.notAfter - clock.now(), () => this.#expire(entry, certificate));
      return;
    }
    const state = entry.state.current;
    const error = state.kind === "unavailable" ? state.error : new MeshError("PKI_CERTIFICATE_EXPIRED", `the certificate of ${entry.identity} has expired`);
    this.#set(entry, { kind: "unavailable", error, certificate: undefined });
    log.error("certificate expired", { identity: entry.identity, error });
  }

  #publish(): void {
    this.#states.set(new Map([...this.#entries].map(([identity, { state }]) => [identity, state.current])));
  }
}

function valid(state: CertificateState, now: number): WorkloadCertificate | undefined {
  const certificate = state.kind === "initializing" ? undefined : state.certificate;
  return certificate !== undefined && certificate.notAfter > now ? certificate : undefined;
}
