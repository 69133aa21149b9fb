/**
 * The live connections of one pod. Inbound ones are registered first and authorized after, so that no policy change can fall between
 * (ztunnel contract 6.5); on every change that concerns the pod they are authorized again, and what is no longer permitted ends at once.
 * Stricter than the reference: a change of the workload's own list of policies counts too.
 */
import { authorize, type ConnectionFacts, formatSocketAddress, type Snapshot, type Verdict, type Workload } from "@fairway/model";
import { type MeshError, messageOf, type TaskGroup } from "@fairway/runtime";
import type { MeshView } from "@fairway/xds";
import type { ConnectionRecord } from "./connection-record.ts";
import { ztunnelError } from "./failure.ts";

/** A connection that lives. Its signal aborts when it must end now, whatever the reason; dispose when it ended. */
export interface LiveConnection extends Disposable {
  readonly signal: AbortSignal;
  /** Ends the connection with `reason`. */
  close(reason: Error): void;
}

/** What the config dump says of a connection (contract 9.4). */
export interface ConnectionSummary {
  readonly src: string;
  readonly originalDst: string | undefined;
  readonly actualDst: string;
  readonly protocol: "TCP" | "HBONE" | "DOUBLEHBONE";
}

export type Admission =
  | { readonly allowed: true; readonly connection: LiveConnection; readonly verdict: Verdict }
  | { readonly allowed: false; readonly verdict: Verdict & { readonly allowed: false } };

interface Entry extends LiveConnection {
  readonly direction: ConnectionRecord["direction"];
  readonly summary: () => ConnectionSummary;
}

/** Connections with equal facts get one evaluation. The set is the reference count. */
interface Group {
  readonly facts: ConnectionFacts;
  readonly entries: Set<Entry>;
  /** The policies under which every entry was permitted; undefined when they were not the same for all. */
  permittedBy: ApplicablePolicies | undefined;
}

type ApplicablePolicies = ReturnType<Snapshot["policiesFor"]>;

export interface ConnectionsOptions {
  readonly mesh: Pick<MeshView, "changes" | "decide">;
  /** Joins the evaluations that a change of the mesh causes. */
  readonly tasks: TaskGroup;
  /** Called for every evaluation, for the policy log; `live` is false at the connection's start. */
  readonly onVerdict?: (facts: ConnectionFacts, verdict: Verdict, live: boolean) => void;
}

export class Connections implements Disposable {
  readonly #mesh: ConnectionsOptions["mesh"];
  readonly #tasks: TaskGroup;
  readonly #onVerdict: NonNullable<ConnectionsOptions["onVerdict"]>;
  readonly #entries = new Set<Entry>();
  readonly #permits = new Map<string, Group>();
  readonly #subscription: Disposable;
  readonly #idleWaiters = new Set<() => void>();
  /** The workload of the pod as last evaluated. Kept when the mesh forgets it, so that a terminating pod finishes under its own policies. */
  #workload: Workload | undefined;
  /** What was accepted and may yet become a connection. */
  #beginning = 0;
  #shutDown: Error | undefined;

  constructor({ mesh, tasks, onVerdict = () => {} }: ConnectionsOptions) {
    this.#mesh = mesh;
    this.#tasks = tasks;
    this.#onVerdict = onVerdict;
    this.#subscription = mesh.changes.subscribe(({ policiesChanged }) => {
      if (this.#workload !== undefined) tasks.run("authorizing what lives", () => this.#reauthorize(policiesChanged));
    });
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Registers a connection that needs no permission (outbound: policy is the destination's). */
  track(direction: ConnectionRecord["direction"], summary: () => ConnectionSummary): LiveConnection {
    return this.#track(direction, summary);
  }

  #track(direction: ConnectionRecord["direction"], summary: () => ConnectionSummary): Entry {
    const controller = new AbortController();
    if (this.#shutDown !== undefined) controller.abort(this.#shutDown);
    const entry: Entry = {
      direction,
      summary,
      signal: controller.signal,
      close: (reason) => controller.abort(reason),
      [Symbol.dispose]: () => {
        this.#entries.delete(entry);
        this.#wakeWhenIdle();
      },
    };
    this.#entries.add(entry);
    return entry;
  }

  /** Something was accepted that may lead to connections: there is no idleness until it is disposed of. */
  begin(): Disposable {
    this.#beginning++;
    return {
      [Symbol.dispose]: () => {
        this.#beginning--;
        this.#wakeWhenIdle();
      },
    };
  }

  /** Registers an inbound connection, then decides whether it may be. A denied one is registered no more. Throws what `decide` of the mesh throws. */
  async admit(workload: Workload, facts: ConnectionFacts, summary: () => ConnectionSummary): Promise<Admission> {
    const connection = this.#track("inbound", summary);
    const { group, release } = this.#register(facts, connection);
    let verdict: Verdict;
    try {
      verdict = await this.#mesh.decide(
        (snapshot) => {
          const current = snapshot.workload(workload.uid) ?? workload;
          const decided = authorize(snapshot, current, facts);
          this.#workload = current;
          const applicable = snapshot.policiesFor(current);
          if (group.entries.size > 1 && !sameAs(applicable, group.permittedBy)) group.permittedBy = undefined;
          else group.permittedBy = applicable;
          return decided;
        },
        { signal: connection.signal },
      );
    } catch (thrown) {
      release[Symbol.dispose]();
      throw thrown;
    }
    this.#onVerdict(facts, verdict, false);
    if (!verdict.allowed) {
      release[Symbol.dispose]();
      return { allowed: false, verdict };
    }
    return { allowed: true, verdict, connection: { signal: connection.signal, close: connection.close, [Symbol.dispose]: () => release[Symbol.dispose]() } };
  }

  /** Ends everything that lives, and from now on everything that would: what was accepted before the end must not outlive it. */
  shutDown(reason: Error): void {
    this.#shutDown = reason;
    for (const entry of [...this.#entries]) entry.close(reason);
  }

  /** Resolves when nothing lives or begins any more. */
  idle({ signal }: { signal: AbortSignal }): Promise<void> {
    if (this.#isIdle() || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#idleWaiters.delete(wake);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      this.#idleWaiters.add(wake);
      signal.addEventListener("abort", wake, { once: true });
    });
  }

  list(direction: ConnectionRecord["direction"]): readonly ConnectionSummary[] {
    return [...this.#entries].filter((entry) => entry.direction === direction).map(({ summary }) => summary());
  }

  [Symbol.dispose](): void {
    this.#subscription[Symbol.dispose]();
  }

  #isIdle(): boolean {
    return this.#entries.size === 0 && this.#beginning === 0;
  }

  #wakeWhenIdle(): void {
    if (this.#isIdle()) for (const wake of [...this.#idleWaiters]) wake();
  }

  #register(facts: ConnectionFacts, entry: Entry): { readonly group: Group; readonly release: Disposable } {
    const key = factsKey(facts);
    const group: Group = this.#permits.get(key) ?? { facts, entries: new Set<Entry>(), permittedBy: undefined };
    group.entries.add(entry);
    this.#permits.set(key, group);
    const release = {
      [Symbol.dispose]: () => {
        group.entries.delete(entry);
        if (group.entries.size === 0 && this.#permits.get(key) === group) this.#permits.delete(key);
        entry[Symbol.dispose]();
      },
    };
    return { group, release };
  }

  /**
   * Evaluates again what was permitted by other policies than those of now: most changes are of policies for others, and the policies that apply
   * to a workload are the same objects until one of them changes. Fails closed: what cannot be decided again may not go on.
   */
  async #reauthorize(policiesChanged: boolean): Promise<void> {
    // Outside of the decision, which may be made more than once.
    const evaluated = new Map<Group, Verdict>();
    try {
      await this.#mesh.decide(
        (snapshot) => {
          const known = this.#workload;
          if (known === undefined) return;
          const workload = snapshot.workload(known.uid) ?? known;
          if (!policiesChanged && workload === known) return;
          const applicable = snapshot.policiesFor(workload);
          for (const group of this.#permits.values()) {
            if (sameAs(applicable, group.permittedBy)) continue;
            evaluated.set(group, authorize(snapshot, workload, group.facts));
            group.permittedBy = applicable;
          }
          this.#workload = workload;
        },
        { signal: this.#tasks.signal },
      );
    } catch (thrown) {
      const reason = changed(`the policies of the moment are not known: ${messageOf(thrown)}`);
      for (const { entries } of [...this.#permits.values()]) for (const entry of [...entries]) entry.close(reason);
      return;
    }
    for (const [group, verdict] of evaluated) {
      this.#onVerdict(group.facts, verdict, true);
      if (verdict.allowed) continue;
      for (const entry of [...group.entries]) entry.close(changed(verdict.message));
    }
  }
}

function sameAs(now: ApplicablePolicies, before: ApplicablePolicies | undefined): boolean {
  if (before === undefined) return false;
  return now === before || (sameItems(now.policies, before.policies) && sameItems(now.missing, before.missing));
}

function sameItems(now: readonly unknown[], before: readonly unknown[]): boolean {
  return now === before || (now.length === before.length && now.every((item, index) => item === before[index]));
}

function changed(message: string): MeshError {
  return ztunnelError("ZTUNNEL_POLICY_CHANGED", `connection closed due to policy change: ${message}`);
}

function factsKey({ source, destination, identity }: ConnectionFacts): string {
  return `${formatSocketAddress(source)} ${formatSocketAddress(destination)} ${identity ?? ""}`;
}
