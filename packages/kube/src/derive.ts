/**
 * Collections made of other collections by pure functions. A transform asks for what it needs through `fetch`; what it
 * asked for is recorded, and a change there runs it again for the objects concerned only. A change is told onwards only
 * when the result differs by value.
 */
import { isDeepStrictEqual } from "node:util";
import type { Collection, CollectionEvent } from "./collection.ts";
import { StoredCollection } from "./keyed-store.ts";

/** A collection by another question than its key: `index(pods, (pod) => [pod.spec.nodeName])`. */
export interface Index<T> {
  readonly synced: Promise<void>;
  lookup(value: string): readonly T[];
  /** Called with the values whose answer may have changed. */
  subscribe(listener: (values: ReadonlySet<string>) => void): Disposable;
}

/** Reads other collections from inside a transform, and remembers that it did. */
export interface Fetch {
  get<T>(collection: Collection<T>, key: string): T | undefined;
  lookup<T>(index: Index<T>, value: string): readonly T[];
  /** Everything; any change there runs the transform again. */
  all<T>(collection: Collection<T>): Iterable<T>;
}

export interface Derived<U> extends Collection<U>, Disposable {}

export interface DeriveOptions<U> {
  /** Whether two results say the same; by value unless told. */
  readonly equal?: (a: U, b: U) => boolean;
}

/** One result per source object, under the same key; undefined leaves the object out. */
export function derive<T, U>(source: Collection<T>, transform: (object: T, fetch: Fetch) => U | undefined, options: DeriveOptions<U> = {}): Derived<U> {
  return new DerivedCollection(
    source,
    (object, key, fetch) => {
      const result = transform(object, fetch);
      return result === undefined ? none : [[key, result]];
    },
    options,
  );
}

/** Any number of results per source object, each under a key of its own. Of two objects that claim one key the first to claim it has it. */
export function deriveMany<T, U>(
  source: Collection<T>,
  transform: (object: T, fetch: Fetch) => Iterable<readonly [key: string, value: U]>,
  options: DeriveOptions<U> = {},
): Derived<U> {
  return new DerivedCollection(source, (object, _key, fetch) => transform(object, fetch), options);
}

/** A collection of at most one value, under the key `key`, made of whatever it fetches. */
export function deriveOne<U>(key: string, transform: (fetch: Fetch) => U | undefined, options: DeriveOptions<U> = {}): Derived<U> {
  return derive(theOnly(key), (_only, fetch) => transform(fetch), options);
}

export function filter<T>(source: Collection<T>, accept: (object: T) => boolean): Derived<T> {
  return derive(source, (object) => (accept(object) ? object : undefined));
}

/** Several collections as one. Of two that hold the same key the first has it. */
export function join<T>(...sources: readonly Collection<T>[]): Derived<T> {
  return new JoinedCollection(sources);
}

export function index<T>(source: Collection<T>, valuesOf: (object: T) => Iterable<string>): Index<T> & Disposable {
  return new CollectionIndex(source, valuesOf);
}

const none: readonly never[] = [];

type Dependents = Map<string, Set<string>>;

interface Dependency {
  readonly synced: Promise<void>;
  readonly byKey: Dependents;
  readonly everything: Set<string>;
  readonly subscription: Disposable;
}

class DerivedCollection<T, U> extends StoredCollection<U> implements Derived<U> {
  readonly synced: Promise<void>;
  readonly #source: Collection<T>;
  readonly #transform: (object: T, key: string, fetch: Fetch) => Iterable<readonly [string, U]>;
  readonly #equal: (a: U, b: U) => boolean;
  /** Result keys by source key. */
  readonly #outputs = new Map<string, readonly string[]>();
  readonly #owners = new Map<string, string>();
  /** Source keys that wait for a result key that another one has. */
  readonly #contenders = new Map<string, Set<string>>();
  readonly #dependencies = new Map<Collection<unknown> | Index<unknown>, Dependency>();
  /** What each source key depends on, to forget it before the next run. */
  readonly #recorded = new Map<string, Set<string>[]>();
  readonly #subscription: Disposable;

  constructor(source: Collection<T>, transform: (object: T, key: string, fetch: Fetch) => Iterable<readonly [string, U]>, { equal }: DeriveOptions<U>) {
    super();
    this.#source = source;
    this.#transform = transform;
    this.#equal = equal ?? isDeepStrictEqual;
    this.#subscription = source.subscribe((events) => this.#recompute(events.map(({ key }) => key)));
    this.#recompute([...source.entries()].map(([key]) => key));
    this.synced = this.#whenSynced();
    this.synced.catch(() => undefined);
  }

  [Symbol.dispose](): void {
    this.#subscription[Symbol.dispose]();
    for (const { subscription } of this.#dependencies.values()) subscription[Symbol.dispose]();
  }

  /** In sync when the source is and everything that any transform asked for is; asking can reveal more to wait for. */
  async #whenSynced(): Promise<void> {
    await this.#source.synced;
    for (let known = -1; known !== this.#dependencies.size; ) {
      known = this.#dependencies.size;
      await Promise.all([...this.#dependencies.values()].map(({ synced }) => synced));
    }
  }

  #recompute(keys: Iterable<string>): void {
    const events: CollectionEvent<U>[] = [];
    const pending = [...new Set(keys)];
    // Grows while it is walked: an object that gave up a key makes way for another one.
    for (const key of pending) pending.push(...this.#recomputeOne(key, events));
    this.store.emit(merge(events));
  }

  /** Runs the transform for one source object; returns source keys that now get a result key this one gave up. */
  #recomputeOne(key: string, events: CollectionEvent<U>[]): readonly string[] {
    this.#forget(key);
    const object = this.#source.get(key);
    const results = this.#resultsFor(key, object);
    if (results === undefined) return none;
    const freed: string[] = [];
    for (const old of this.#outputs.get(key) ?? none) {
      if (results.has(old)) continue;
      this.#contenders.get(old)?.delete(key);
      if (this.#owners.get(old) !== key) continue;
      this.#owners.delete(old);
      push(events, this.store.put(old, undefined));
      freed.push(...(this.#contenders.get(old) ?? none));
      this.#contenders.delete(old);
    }
    for (const [resultKey, value] of results) {
      const owner = this.#owners.get(resultKey) ?? key;
      if (owner !== key) {
        this.#contenders.set(resultKey, (this.#contenders.get(resultKey) ?? new Set()).add(key));
        continue;
      }
      this.#owners.set(resultKey, key);
      const known = this.store.get(resultKey);
      if (known === undefined || !this.#equal(known, value)) push(events, this.store.put(resultKey, value));
    }
    if (results.size === 0) this.#outputs.delete(key);
    else this.#outputs.set(key, [...results.keys()]);
    return freed;
  }

  /** A transform that throws is reported, and what it said before stays: one bad object harms no other, and takes nothing away. */
  #resultsFor(key: string, object: T | undefined): ReadonlyMap<string, U> | undefined {
    if (object === undefined) return new Map();
    try {
      return new Map(this.#transform(object, key, this.#fetchFor(key)));
    } catch (thrown) {
      process.emitWarning(thrown instanceof Error ? thrown : String(thrown));
      return undefined;
    }
  }

  #fetchFor(key: string): Fetch {
    const record = (dependents: Set<string>): void => {
      dependents.add(key);
      const sets = this.#recorded.get(key);
      if (sets === undefined) this.#recorded.set(key, [dependents]);
      else if (!sets.includes(dependents)) sets.push(dependents);
    };
    return {
      get: (collection, wanted) => {
        record(setOf(this.#dependency(collection).byKey, wanted));
        return collection.get(wanted);
      },
      lookup: (asked, value) => {
        record(setOf(this.#dependencyOnIndex(asked).byKey, value));
        return asked.lookup(value);
      },
      all: (collection) => {
        record(this.#dependency(collection).everything);
        return collection.list();
      },
    };
  }

  #forget(key: string): void {
    for (const dependents of this.#recorded.get(key) ?? none) dependents.delete(key);
    this.#recorded.delete(key);
  }

  #dependency(collection: Collection<unknown>): Dependency {
    return this.#track(collection, (changed) => collection.subscribe((events) => changed(events.map(({ key }) => key))));
  }

  #dependencyOnIndex(asked: Index<unknown>): Dependency {
    return this.#track(asked, (changed) => asked.subscribe(changed));
  }

  #track(of: Collection<unknown> | Index<unknown>, subscribe: (changed: (keys: Iterable<string>) => void) => Disposable): Dependency {
    const known = this.#dependencies.get(of);
    if (known !== undefined) return known;
    const byKey: Dependents = new Map();
    const everything = new Set<string>();
    const subscription = subscribe((keys) => {
      const concerned = new Set(everything);
      for (const changed of keys) {
        const dependents = byKey.get(changed);
        for (const key of dependents ?? none) concerned.add(key);
        if (dependents?.size === 0) byKey.delete(changed);
      }
      this.#recompute(concerned);
    });
    const dependency = { synced: of.synced, byKey, everything, subscription };
    this.#dependencies.set(of, dependency);
    return dependency;
  }
}

class CollectionIndex<T> implements Index<T>, Disposable {
  readonly synced: Promise<void>;
  readonly #source: Collection<T>;
  readonly #valuesOf: (object: T) => Iterable<string>;
  readonly #keys: Dependents = new Map();
  readonly #listeners = new Set<(values: ReadonlySet<string>) => void>();
  readonly #subscription: Disposable;

  constructor(source: Collection<T>, valuesOf: (object: T) => Iterable<string>) {
    this.#source = source;
    this.#valuesOf = valuesOf;
    this.synced = source.synced;
    for (const [key, object] of source.entries()) this.#add(key, object);
    this.#subscription = source.subscribe((events) => this.#changed(events));
  }

  lookup(value: string): readonly T[] {
    return [...(this.#keys.get(value) ?? none)].flatMap((key) => this.#source.get(key) ?? []);
  }

  subscribe(listener: (values: ReadonlySet<string>) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  [Symbol.dispose](): void {
    this.#subscription[Symbol.dispose]();
  }

  #changed(events: readonly CollectionEvent<T>[]): void {
    const touched = new Set<string>();
    for (const event of events) {
      const old = event.type === "updated" ? event.previous : event.type === "deleted" ? event.object : undefined;
      for (const value of old === undefined ? none : this.#valuesOf(old)) {
        touched.add(value);
        const keys = this.#keys.get(value);
        keys?.delete(event.key);
        if (keys?.size === 0) this.#keys.delete(value);
      }
      for (const value of event.type === "deleted" ? none : this.#add(event.key, event.object)) touched.add(value);
    }
    for (const listener of [...this.#listeners]) listener(touched);
  }

  #add(key: string, object: T): readonly string[] {
    const values = [...this.#valuesOf(object)];
    for (const value of values) setOf(this.#keys, value).add(key);
    return values;
  }
}

class JoinedCollection<T> extends StoredCollection<T> implements Derived<T> {
  readonly synced: Promise<void>;
  readonly #sources: readonly Collection<T>[];
  readonly #subscriptions: readonly Disposable[];

  constructor(sources: readonly Collection<T>[]) {
    super();
    this.#sources = sources;
    for (const source of [...sources].reverse()) for (const [key, object] of source.entries()) this.store.put(key, object);
    this.#subscriptions = sources.map((source) => source.subscribe((events) => this.#changed(events)));
    this.synced = Promise.all(sources.map(({ synced }) => synced)).then(() => undefined);
    this.synced.catch(() => undefined);
  }

  [Symbol.dispose](): void {
    for (const subscription of this.#subscriptions) subscription[Symbol.dispose]();
  }

  #changed(events: readonly CollectionEvent<T>[]): void {
    const changes: CollectionEvent<T>[] = [];
    for (const { key } of events) {
      const current = this.#sources.map((source) => source.get(key)).find((object) => object !== undefined);
      if (current !== this.store.get(key)) push(changes, this.store.put(key, current));
    }
    this.store.emit(changes);
  }
}

/** The constant source of `deriveOne`. */
function theOnly(key: string): Collection<true> {
  return {
    synced: Promise.resolve(),
    get: (wanted) => (wanted === key ? true : undefined),
    list: () => [true],
    entries: () => [[key, true]],
    subscribe: () => ({ [Symbol.dispose]: () => undefined }),
  };
}

/** One event per key: what was there before the batch against what is there after it, so that nobody sees a state in between. */
function merge<U>(events: readonly CollectionEvent<U>[]): readonly CollectionEvent<U>[] {
  const byKey = Map.groupBy(events, ({ key }) => key);
  if (byKey.size === events.length) return events;
  return [...byKey.values()].flatMap((group): CollectionEvent<U>[] => {
    const first = group[0];
    const last = group[group.length - 1];
    if (first === undefined || last === undefined || first === last) return group;
    const previous = first.type === "added" ? undefined : first.type === "updated" ? first.previous : first.object;
    const { key, object } = last;
    if (last.type === "deleted") return previous === undefined ? [] : [{ type: "deleted", key, object: previous }];
    return [previous === undefined ? { type: "added", key, object } : { type: "updated", key, object, previous }];
  });
}

function setOf(map: Dependents, key: string): Set<string> {
  const known = map.get(key);
  if (known !== undefined) return known;
  const created = new Set<string>();
  map.set(key, created);
  return created;
}

function push<U>(events: CollectionEvent<U>[], event: CollectionEvent<U> | undefined): void {
  if (event !== undefined) events.push(event);
}
