/**
 * Tunnels by key (ztunnel contract 1.9). Concurrent first requests share one dial; a tunnel that is full, draining or dead is passed over;
 * one that fell below its limit again is used again. Idle tunnels are released, the number of tunnels is bounded.
 * A CONNECT whose tunnel was lost before any byte went out is tried once more on a fresh tunnel.
 */
import type { Duplex } from "node:stream";
import { type Clock, errorCode, MeshError, systemClock } from "@fairway/runtime";
import type { ClientTunnel, ConnectRequest, TunnelEngine, TunnelKey, TunnelSettings, TunnelStream } from "./engine.ts";
import type { HboneMetrics } from "./metrics.ts";
import { defaultClientSettings } from "./settings.ts";

/** Makes the transport of a new tunnel: connects and proves the peer. The pool owns what it returns. */
export type TunnelDial = (signal: AbortSignal) => Promise<Duplex>;

export interface TunnelPoolOptions {
  readonly engine: TunnelEngine;
  readonly settings?: TunnelSettings;
  readonly clock?: Clock;
  /** Release of tunnels without streams, after the last one was opened; 5 minutes unless told. */
  readonly idleMs?: number;
  /** Most tunnels kept; the least recently used is drained for a new one. 500 unless told. */
  readonly maxTunnels?: number;
  readonly metrics?: HboneMetrics | undefined;
}

export interface OpenedStream {
  readonly stream: TunnelStream;
  /** The answer's baggage: who the destination is. */
  readonly baggage: string | undefined;
  readonly tunnel: ClientTunnel;
}

const defaultIdleMs = 5 * 60_000;
const defaultMaxTunnels = 500;
/** Idle tunnels are looked for this many times per idle period. */
const sweepsPerIdle = 10;

export class TunnelPool implements AsyncDisposable {
  readonly #engine: TunnelEngine;
  readonly #settings: TunnelSettings;
  readonly #clock: Clock;
  readonly #idleMs: number;
  readonly #maxTunnels: number;
  readonly #metrics: HboneMetrics | undefined;
  readonly #groups = new Map<string, Group>();
  /** Least recently used first. */
  readonly #entries = new Set<Entry>();
  readonly #stopped = new AbortController();
  #draining = false;
  #sweep: Disposable | undefined;

  constructor({ engine, settings, clock, idleMs, maxTunnels, metrics }: TunnelPoolOptions) {
    this.#engine = engine;
    this.#settings = settings ?? defaultClientSettings;
    this.#clock = clock ?? systemClock;
    this.#idleMs = idleMs ?? defaultIdleMs;
    this.#maxTunnels = maxTunnels ?? defaultMaxTunnels;
    this.#metrics = metrics;
  }

  /** Tunnels held now. */
  get size(): number {
    return this.#entries.size;
  }

  /**
   * Sends a CONNECT over a pooled tunnel, dialling one when none is usable. Throws what the dial threw, the engine's HBONE_* errors,
   * HBONE_POOL_CLOSED after `drain`, or the signal's reason.
   */
  async open(key: TunnelKey, request: ConnectRequest, dial: TunnelDial, { signal }: { signal: AbortSignal }): Promise<OpenedStream> {
    const name = keyName(key);
    for (let lost = 0; ; ) {
      const entry = this.#ready(name, signal);
      if (entry === undefined) {
        await this.#dialled(name, key, dial, signal);
        continue;
      }
      this.#metrics?.streams.inc();
      try {
        const { stream, baggage } = await entry.tunnel.open(request, { signal });
        return { stream, baggage, tunnel: entry.tunnel };
      } catch (thrown) {
        if (errorCode(thrown) !== "HBONE_TUNNEL_LOST" || signal.aborted) throw thrown;
        this.#release(entry);
        lost += 1;
        if (lost > 1) throw thrown;
        this.#metrics?.retries.inc();
      }
    }
  }

  /** A usable tunnel, dialled when there is none. It may fill up before the caller opens a stream; `open` has no such gap. */
  async get(key: TunnelKey, dial: TunnelDial, { signal }: { signal: AbortSignal }): Promise<ClientTunnel> {
    const name = keyName(key);
    for (;;) {
      const entry = this.#ready(name, signal);
      if (entry !== undefined) return entry.tunnel;
      await this.#dialled(name, key, dial, signal);
    }
  }

  /** Forgets every tunnel to a workload that is gone, so that nobody else reaches it by its old address. Open streams finish. */
  evictWorkload(uid: string): void {
    for (const entry of [...this.#entries]) {
      if (entry.group.workload === uid) this.#release(entry);
    }
    for (const group of [...this.#groups.values()]) {
      if (group.workload === uid) group.dialing?.abandon(new MeshError("HBONE_EVICTED", `workload ${uid} is gone`));
    }
  }

  /** Opens nothing new; tunnels close when their last stream ends. */
  drain(): void {
    this.#draining = true;
    this.#sweep?.[Symbol.dispose]();
    for (const entry of [...this.#entries]) this.#release(entry);
  }

  /** Ends every tunnel and every dial now. */
  async [Symbol.asyncDispose](): Promise<void> {
    const entries = [...this.#entries];
    this.#draining = true;
    this.#sweep?.[Symbol.dispose]();
    this.#stopped.abort(closedError());
    for (const { tunnel } of entries) tunnel.destroy();
    await Promise.all(entries.map(({ tunnel }) => tunnel.closed));
  }

  /** Synchronous up to the caller's `tunnel.open`, so that no two callers take the same last stream. */
  #ready(name: string, signal: AbortSignal): Entry | undefined {
    signal.throwIfAborted();
    if (this.#draining) throw closedError();
    const entry = this.#groups.get(name)?.entries.find(({ tunnel }) => tunnel.usable);
    if (entry !== undefined) this.#touch(entry);
    return entry;
  }

  /** Waits for the dial under way, or starts one. */
  #dialled(name: string, key: TunnelKey, dial: TunnelDial, signal: AbortSignal): Promise<void> {
    let group = this.#groups.get(name);
    if (group === undefined) {
      group = { name, workload: key.workload, entries: [], dialing: undefined };
      this.#groups.set(name, group);
    }
    if (group.dialing === undefined || group.dialing.signal.aborted) group.dialing = this.#dial(group, dial);
    return group.dialing.wait(signal);
  }

  #dial(group: Group, dial: TunnelDial): SharedDial {
    const shared = new SharedDial();
    const signal = AbortSignal.any([shared.signal, this.#stopped.signal]);
    const connecting = async (): Promise<void> => {
      try {
        const transport = await dial(signal);
        const tunnel = await this.#engine.connect(transport, this.#settings, { signal });
        if (signal.aborted || this.#draining) {
          tunnel.destroy();
          throw signal.aborted ? signal.reason : closedError();
        }
        this.#add(group, tunnel);
        shared.succeed();
      } catch (thrown) {
        this.#metrics?.dialFailures.inc();
        shared.fail(thrown);
      } finally {
        if (group.dialing === shared) group.dialing = undefined;
        this.#tidy(group);
      }
    };
    // Never rejects: every outcome goes to whoever waits.
    void connecting();
    return shared;
  }

  #add(group: Group, tunnel: ClientTunnel): void {
    const oldest = this.#entries.size >= this.#maxTunnels ? this.#entries.values().next().value : undefined;
    if (oldest !== undefined) this.#release(oldest);
    const entry: Entry = { group, tunnel, usedAt: this.#clock.monotonic() };
    this.#groups.set(group.name, group);
    group.entries.push(entry);
    this.#entries.add(entry);
    this.#metrics?.dialled.inc();
    this.#metrics?.tunnels.inc();
    this.#sweep ??= this.#clock.schedule(this.#idleMs / sweepsPerIdle, this.#onSweep);
    // `closed` never rejects.
    void tunnel.closed.then(() => this.#remove(entry));
  }

  #touch(entry: Entry): void {
    entry.usedAt = this.#clock.monotonic();
    this.#entries.delete(entry);
    this.#entries.add(entry);
  }

  readonly #onSweep = (): void => {
    const now = this.#clock.monotonic();
    for (const entry of [...this.#entries]) {
      if (entry.tunnel.streams > 0) entry.usedAt = now;
      else if (now - entry.usedAt >= this.#idleMs) this.#release(entry);
    }
    this.#sweep = this.#entries.size === 0 ? undefined : this.#clock.schedule(this.#idleMs / sweepsPerIdle, this.#onSweep);
  };

  #release(entry: Entry): void {
    this.#remove(entry);
    entry.tunnel.drain();
  }

  #remove(entry: Entry): void {
    if (!this.#entries.delete(entry)) return;
    this.#metrics?.tunnels.dec();
    const { group } = entry;
    group.entries.splice(group.entries.indexOf(entry), 1);
    this.#tidy(group);
  }

  #tidy(group: Group): void {
    if (group.entries.length === 0 && group.dialing === undefined && this.#groups.get(group.name) === group) this.#groups.delete(group.name);
  }
}

interface Entry {
  readonly group: Group;
  readonly tunnel: ClientTunnel;
  usedAt: number;
}

/** Tunnels of one key. */
interface Group {
  readonly name: string;
  readonly workload: string | undefined;
  readonly entries: Entry[];
  dialing: SharedDial | undefined;
}

/** One dial that many wait for; it goes on while anybody does. */
class SharedDial {
  readonly #controller = new AbortController();
  readonly #waiters = new Set<{ resolve: () => void; reject: (error: unknown) => void }>();

  /** Aborts when nobody waits any more. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiter = {
        resolve: () => {
          signal.removeEventListener("abort", onAbort);
          resolve();
        },
        reject: (error: unknown) => {
          signal.removeEventListener("abort", onAbort);
          reject(error);
        },
      };
      const onAbort = (): void => {
        this.#waiters.delete(waiter);
        reject(signal.reason);
        if (this.#waiters.size === 0) this.#controller.abort(new MeshError("HBONE_DIAL_ABANDONED", "nobody waits for the tunnel any more"));
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiters.add(waiter);
    });
  }

  /** Gives up at once: whoever waits gets `error`. */
  abandon(error: Error): void {
    this.fail(error);
    this.#controller.abort(error);
  }

  succeed(): void {
    for (const waiter of this.#waiters) waiter.resolve();
    this.#waiters.clear();
  }

  fail(error: unknown): void {
    for (const waiter of this.#waiters) waiter.reject(error);
    this.#waiters.clear();
  }
}

function keyName({ owner, source, expected, workload, address }: TunnelKey): string {
  return JSON.stringify([owner, source, [...expected].sort(), workload, address]);
}

function closedError(): MeshError {
  return new MeshError("HBONE_POOL_CLOSED", "the tunnel pool is draining; no new streams are opened");
}
