/**
 * Which names are wanted when discovery is on demand, and who waits for their answers. No I/O.
 *
 *   unknown ──ask──▶ asked ──answer──▶ present | absent | refused ──idle──▶ unknown
 *
 * Every wait is bounded, so is the number of names; a name that nobody asked for in a while is let go. That something does not exist is
 * remembered for a moment only, and then forgotten. While the control plane is away all that is known stays.
 */
import { type Clock, MeshError } from "@fairway/runtime";

export interface DemandLimits {
  /** Names subscribed at most. Over it the one unused longest makes room. */
  readonly maxNames: number;
  /** A name that was not asked for in this time is unsubscribed. */
  readonly idleMs: number;
  /** For how long "there is no such thing" is believed. */
  readonly absentMs: number;
  /** Longest wait for an answer. */
  readonly answerTimeoutMs: number;
}

export const defaultDemandLimits: DemandLimits = { maxNames: 10_000, idleMs: 600_000, absentMs: 5_000, answerTimeoutMs: 4_000 };

export interface DemandHooks {
  /** Tells the control plane, and whenever it is told everything anew it reads `names()`. */
  subscribe(names: readonly string[]): void;
  /** These are no longer wanted: tell the control plane, and drop what came under them. */
  release(names: readonly string[]): void;
  /** False while the control plane is away: then nothing is doubted and nothing let go, for it could not be asked for again. */
  live(): boolean;
}

/** What one response said. Removed names are applied first: a resource can be removed and come again in one response. */
export interface DemandAnswer {
  readonly removed: Iterable<string>;
  readonly received: Iterable<string>;
  readonly refused: Iterable<string>;
}

type State = "asked" | "present" | "absent" | "refused";

interface Wanted {
  state: State;
  answeredAt: number;
  usedAt: number;
  /** The process serves it: never let go while it exists, and when it does not exist yet not doubted every moment. */
  pinned: boolean;
  readonly waiters: Set<() => void>;
}

/** Idle names are looked for this many times per idle period. */
const sweepsPerIdle = 10;
/** Of the names, when there are too many. */
const shareEvicted = 0.01;

export class Demand implements Disposable {
  readonly #clock: Clock;
  readonly #limits: DemandLimits;
  readonly #hooks: DemandHooks;
  /** Least recently used first. */
  readonly #wanted = new Map<string, Wanted>();
  #sweep: Disposable | undefined;

  constructor({ clock, limits, hooks }: { clock: Clock; limits?: Partial<DemandLimits>; hooks: DemandHooks }) {
    this.#clock = clock;
    this.#limits = { ...defaultDemandLimits, ...limits };
    this.#hooks = hooks;
  }

  get size(): number {
    return this.#wanted.size;
  }

  names(): Iterable<string> {
    return this.#wanted.keys();
  }

  wants(name: string): boolean {
    return this.#wanted.has(name);
  }

  /** Names that no answer has come for yet. */
  *unanswered(): Iterable<string> {
    for (const [name, { state }] of this.#wanted) if (state === "asked") yield name;
  }

  /**
   * Resolves when every name was answered, now or before; what the answers were is in the snapshot. Throws XDS_DEMAND_TIMEOUT,
   * XDS_DEMAND_REFUSED (what was sent could not be read), XDS_DEMAND_OVERLOADED, or the signal's reason.
   */
  async fetch(names: readonly string[], { signal }: { signal: AbortSignal }): Promise<void> {
    signal.throwIfAborted();
    const open = names.filter((name) => this.#use(name).state === "asked");
    if (open.length > 0) await this.#wait(open, signal);
    for (const name of names) {
      if (this.#wanted.get(name)?.state !== "refused") continue;
      throw new MeshError("XDS_DEMAND_REFUSED", `the control plane sent ${name} in a form that this version cannot read; see the log of discovery`);
    }
  }

  /** Asks without waiting. True when every name was answered, and what is there could be read. */
  use(names: readonly string[]): boolean {
    let settled = true;
    for (const name of names) {
      const { state } = this.#use(name);
      settled &&= state === "present" || state === "absent";
    }
    return settled;
  }

  /** Asks without waiting, and keeps the name for as long as it exists. */
  pin(names: readonly string[]): void {
    for (const name of names) this.#use(name).pinned = true;
  }

  /** Takes in a response; call it when the response was applied, so that whoever wakes sees it. */
  answered({ removed, received, refused }: DemandAnswer): void {
    for (const name of removed) this.#settle(name, "absent");
    for (const name of refused) this.#settle(name, "refused");
    for (const name of received) this.#settle(name, "present");
  }

  [Symbol.dispose](): void {
    this.#sweep?.[Symbol.dispose]();
    for (const { waiters } of this.#wanted.values()) for (const wake of [...waiters]) wake();
  }

  #use(name: string): Wanted {
    const now = this.#clock.monotonic();
    const known = this.#wanted.get(name);
    if (known !== undefined) {
      known.usedAt = now;
      this.#wanted.delete(name);
      this.#wanted.set(name, known);
      if (this.#isStale(known, now)) {
        known.state = "asked";
        this.#hooks.subscribe([name]);
      }
      return known;
    }
    if (this.#wanted.size >= this.#limits.maxNames) this.#makeRoom();
    const fresh: Wanted = { state: "asked", answeredAt: now, usedAt: now, pinned: false, waiters: new Set() };
    this.#wanted.set(name, fresh);
    this.#scheduleSweep();
    this.#hooks.subscribe([name]);
    return fresh;
  }

  #isStale({ state, answeredAt, pinned }: Wanted, now: number): boolean {
    return !pinned && (state === "absent" || state === "refused") && now - answeredAt >= this.#limits.absentMs && this.#hooks.live();
  }

  /** Several at once: letting go looks through all that is held. */
  #makeRoom(): void {
    const { maxNames } = this.#limits;
    const victims: string[] = [];
    for (const [name, wanted] of this.#hooks.live() ? this.#wanted : []) {
      if (!mayGo(wanted)) continue;
      victims.push(name);
      if (victims.length >= maxNames * shareEvicted) break;
    }
    for (const name of victims) this.#wanted.delete(name);
    if (victims.length === 0) throw new MeshError("XDS_DEMAND_OVERLOADED", `${maxNames} names are being asked of the control plane already; does it answer?`);
    this.#hooks.release(victims);
  }

  #wait(names: readonly string[], signal: AbortSignal): Promise<void> {
    const { answerTimeoutMs } = this.#limits;
    const open = new Set(names);
    return new Promise((resolve, reject) => {
      const wakes = names.map((name) => {
        const wanted = this.#wanted.get(name);
        const wake = (): void => {
          open.delete(name);
          if (open.size === 0) settle(resolve);
        };
        wanted?.waiters.add(wake);
        return { waiters: wanted?.waiters, wake };
      });
      const settle = (how: () => void): void => {
        timer[Symbol.dispose]();
        signal.removeEventListener("abort", onAbort);
        for (const { waiters, wake } of wakes) waiters?.delete(wake);
        how();
      };
      const onAbort = (): void => settle(() => reject(signal.reason));
      const timer = this.#clock.schedule(answerTimeoutMs, () => settle(() => reject(late([...open], answerTimeoutMs))));
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  #settle(name: string, state: Exclude<State, "asked">): void {
    const wanted = this.#wanted.get(name);
    if (wanted === undefined) return;
    wanted.state = state;
    wanted.answeredAt = this.#clock.monotonic();
    for (const wake of [...wanted.waiters]) wake();
  }

  #scheduleSweep(): void {
    const { idleMs, absentMs } = this.#limits;
    this.#sweep ??= this.#clock.schedule(Math.min(idleMs / sweepsPerIdle, absentMs), this.#onSweep);
  }

  readonly #onSweep = (): void => {
    this.#sweep = undefined;
    const now = this.#clock.monotonic();
    const isIdle = (wanted: Wanted): boolean => mayGo(wanted) && (now - wanted.usedAt >= this.#limits.idleMs || this.#isStale(wanted, now));
    const idle = this.#hooks.live() ? [...this.#wanted].flatMap(([name, wanted]) => (isIdle(wanted) ? [name] : [])) : [];
    for (const name of idle) this.#wanted.delete(name);
    if (idle.length > 0) this.#hooks.release(idle);
    if (this.#wanted.size > 0) this.#scheduleSweep();
  };
}

/** What is pinned stays for as long as it exists. */
function mayGo({ pinned, state, waiters }: Wanted): boolean {
  return waiters.size === 0 && (!pinned || state === "absent");
}

function late(names: readonly string[], afterMs: number): MeshError {
  const shown = names.slice(0, 3).join(", ");
  return new MeshError(
    "XDS_DEMAND_TIMEOUT",
    `the control plane did not say within ${afterMs} ms what is at ${shown}; is discovery connected, and does it serve proxies that ask on demand?`,
  );
}
