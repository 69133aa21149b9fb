/** The set behind every collection: objects by key, listeners, and what changed. */
import type { Collection, CollectionEvent } from "./collection.ts";

export class KeyedStore<T> {
  readonly #objects = new Map<string, T>();
  readonly #listeners = new Set<(events: readonly CollectionEvent<T>[]) => void>();

  get size(): number {
    return this.#objects.size;
  }

  get(key: string): T | undefined {
    return this.#objects.get(key);
  }

  list(): Iterable<T> {
    return this.#objects.values();
  }

  entries(): Iterable<[string, T]> {
    return this.#objects.entries();
  }

  subscribe(listener: (events: readonly CollectionEvent<T>[]) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /** Stores `object`, or removes the key when undefined, and says what that changed; nobody is told yet. */
  put(key: string, object: T | undefined): CollectionEvent<T> | undefined {
    const previous = this.#objects.get(key);
    if (object === undefined) {
      if (previous === undefined) return undefined;
      this.#objects.delete(key);
      return { type: "deleted", key, object: previous };
    }
    this.#objects.set(key, object);
    return previous === undefined ? { type: "added", key, object } : { type: "updated", key, object, previous };
  }

  /** Tells every listener; one that throws is reported and does not stop the others. */
  emit(events: readonly CollectionEvent<T>[]): void {
    if (events.length === 0) return;
    for (const listener of [...this.#listeners]) {
      try {
        listener(events);
      } catch (thrown) {
        process.emitWarning(thrown instanceof Error ? thrown : String(thrown));
      }
    }
  }
}

/** A collection as everybody sees it: what its store holds. Only the collection itself changes that. */
export abstract class StoredCollection<T> implements Collection<T> {
  abstract readonly synced: Promise<void>;
  protected readonly store: KeyedStore<T> = new KeyedStore();

  get(key: string): T | undefined {
    return this.store.get(key);
  }

  list(): Iterable<T> {
    return this.store.list();
  }

  entries(): Iterable<[string, T]> {
    return this.store.entries();
  }

  subscribe(listener: (events: readonly CollectionEvent<T>[]) => void): Disposable {
    return this.store.subscribe(listener);
  }
}

/** A collection that its owner fills by hand: what a test feeds, or a fact that does not come from Kubernetes. */
export class MutableCollection<T> extends StoredCollection<T> {
  readonly synced: Promise<void> = Promise.resolve();
  readonly #keyOf: (object: T) => string;

  constructor(keyOf: (object: T) => string, initial: Iterable<T> = []) {
    super();
    this.#keyOf = keyOf;
    this.set(...initial);
  }

  /** Adds or replaces; one batch of events. */
  set(...objects: readonly T[]): void {
    this.store.emit(objects.flatMap((object) => this.store.put(this.#keyOf(object), object) ?? []));
  }

  delete(...keys: readonly string[]): void {
    this.store.emit(keys.flatMap((key) => this.store.put(key, undefined) ?? []));
  }
}
