/**
 * The versioned store: every write takes the next resourceVersion, and every table keeps a bounded history so that
 * watches can resume. Objects are never mutated once stored. All methods are synchronous: read-modify-write is atomic.
 */
import type { Clock } from "@fairway/runtime";
import { ApiError } from "./api-error.ts";
import type { KubeObject } from "./kube-object.ts";

export type ChangeType = "ADDED" | "MODIFIED" | "DELETED";

export interface Change {
  readonly type: ChangeType;
  readonly revision: number;
  /** The state after the change; for a deletion the last state, with the deletion's resourceVersion. */
  readonly object: KubeObject;
  /** The state before, absent for a creation. */
  readonly previous?: KubeObject;
}

export type ChangeListener = (change: Change) => void;

/** How many changes each table remembers for watches that resume; older ones answer 410. */
export const defaultHistoryLength = 4096;
/** How many objects one table holds. */
export const maxObjectsPerTable = 100_000;

interface Table {
  readonly objects: Map<string, KubeObject>;
  /** The keys in order, rebuilt lazily: lists and their pages walk it. */
  sorted: readonly KubeObject[] | undefined;
  history: Change[];
  /** Changes up to this revision are forgotten. */
  forgotten: number;
  readonly listeners: Set<ChangeListener>;
}

export interface StorageOptions {
  readonly clock: Clock;
  readonly historyLength?: number;
}

export class Storage {
  readonly #tables = new Map<string, Table>();
  readonly #historyLength: number;
  readonly #observers = new Set<(table: string, change: Change) => void>();
  readonly #first: number;
  #revision: number;

  constructor({ clock, historyLength = defaultHistoryLength }: StorageOptions) {
    // Starting from the wall clock makes versions of an earlier run look old, so a client that outlived it is told 410.
    this.#first = Math.max(1, Math.floor(clock.now()));
    this.#revision = this.#first;
    this.#historyLength = historyLength;
  }

  get revision(): number {
    return this.#revision;
  }

  get(table: string, namespace: string, name: string): KubeObject | undefined {
    return this.#tables.get(table)?.objects.get(keyOf(namespace, name));
  }

  /** All objects of the table, or of one namespace, ordered by namespace and name. */
  list(table: string, namespace?: string): readonly KubeObject[] {
    const stored = this.#tables.get(table);
    if (stored === undefined) return [];
    stored.sorted ??= [...stored.objects.entries()].sort(([left], [right]) => (left < right ? -1 : 1)).map(([, object]) => object);
    return namespace === undefined ? stored.sorted : stored.sorted.filter((object) => (object.metadata.namespace ?? "") === namespace);
  }

  size(table: string): number {
    return this.#tables.get(table)?.objects.size ?? 0;
  }

  /** The object of the table that was created first. */
  oldest(table: string): KubeObject | undefined {
    return this.#tables.get(table)?.objects.values().next().value;
  }

  tables(): readonly string[] {
    return [...this.#tables.keys()];
  }

  /** Stores the object as a new version and returns it. `object` must not be touched afterwards. */
  put(table: string, object: KubeObject): KubeObject {
    const stored = this.#table(table);
    const key = keyOf(object.metadata.namespace ?? "", object.metadata.name);
    const previous = stored.objects.get(key);
    if (previous === undefined && stored.objects.size >= maxObjectsPerTable) {
      throw ApiError.tooManyRequests(`this server holds at most ${maxObjectsPerTable} objects of one type`);
    }
    const next = this.#stamped(object);
    stored.objects.set(key, next);
    stored.sorted = undefined;
    this.#publish(table, stored, {
      type: previous === undefined ? "ADDED" : "MODIFIED",
      revision: this.#revision,
      object: next,
      ...(previous === undefined ? {} : { previous }),
    });
    return next;
  }

  /** Removes the object and returns its last state, or nothing when there is none. */
  remove(table: string, namespace: string, name: string): KubeObject | undefined {
    const stored = this.#tables.get(table);
    const key = keyOf(namespace, name);
    const previous = stored?.objects.get(key);
    if (stored === undefined || previous === undefined) return undefined;
    const last = this.#stamped(previous);
    stored.objects.delete(key);
    stored.sorted = undefined;
    this.#publish(table, stored, { type: "DELETED", revision: this.#revision, object: last, previous });
    return last;
  }

  /** The changes after `revision`. Throws 410 when they are no longer (or not yet) known. */
  since(table: string, revision: number): readonly Change[] {
    const stored = this.#table(table);
    if (revision < Math.max(stored.forgotten, this.#first) || revision > this.#revision) {
      throw ApiError.expired(`too old resource version: ${revision} (${Math.max(stored.forgotten, this.#first)})`);
    }
    return stored.history.filter((change) => change.revision > revision);
  }

  /** Calls `listener` synchronously for each later change of the table. */
  subscribe(table: string, listener: ChangeListener): Disposable {
    const { listeners } = this.#table(table);
    listeners.add(listener);
    return { [Symbol.dispose]: () => void listeners.delete(listener) };
  }

  /** Calls `observer` synchronously for each later change of any table. It must not throw. */
  observe(observer: (table: string, change: Change) => void): Disposable {
    this.#observers.add(observer);
    return { [Symbol.dispose]: () => void this.#observers.delete(observer) };
  }

  /** Forgets all history, as a compaction does: watches that resume from before get 410. */
  compact(): void {
    for (const table of this.#tables.values()) {
      table.history = [];
      table.forgotten = this.#revision;
    }
  }

  #stamped(object: KubeObject): KubeObject {
    this.#revision += 1;
    return { ...object, metadata: { ...object.metadata, resourceVersion: String(this.#revision) } };
  }

  #table(name: string): Table {
    let table = this.#tables.get(name);
    if (table === undefined) {
      table = { objects: new Map(), sorted: undefined, history: [], forgotten: 0, listeners: new Set() };
      this.#tables.set(name, table);
    }
    return table;
  }

  #publish(name: string, table: Table, change: Change): void {
    table.history.push(change);
    // Trimmed in halves, so that the cost of forgetting is spread over many writes.
    if (table.history.length > this.#historyLength) {
      const dropped = table.history.splice(0, Math.ceil(this.#historyLength / 2));
      table.forgotten = dropped.at(-1)?.revision ?? table.forgotten;
    }
    for (const listener of [...table.listeners]) listener(change);
    for (const observer of [...this.#observers]) observer(name, change);
  }
}

/** `/` sorts below every character a name may have, so one namespace is one run of keys. */
function keyOf(namespace: string, name: string): string {
  return `${namespace}/${name}`;
}
