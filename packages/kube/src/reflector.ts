/**
 * One resource type, kept current: paged list, then watch from there, for ever.
 *
 *   listing ──ok──► watching ──clean close──► watching (from the last resourceVersion)
 *      ▲               │ reset, 5xx, silence ──backoff──► watching (same)
 *      └──── 410 ──────┘
 *
 * Nothing ends it but disposal. While the server is away the last known objects stay.
 */
import { isDeepStrictEqual } from "node:util";
import { Backoff, type Clock, type Logger, MeshError, TaskGroup } from "@fairway/runtime";
import { type CollectionEvent, type KubeObject, objectKey, type ResourceType, type Selection } from "./collection.ts";
import { statusError } from "./errors.ts";
import { StoredCollection } from "./keyed-store.ts";
import type { KubeMetrics } from "./metrics.ts";
import { apiVersionOf, queryOf, resourcePath, selectionQuery } from "./paths.ts";
import type { Transport } from "./transport.ts";

export interface ReflectorOptions<T extends KubeObject> {
  readonly type: ResourceType<T>;
  readonly selection: Selection;
  readonly reduce: ((object: T) => T) | undefined;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: KubeMetrics | undefined;
  readonly random: () => number;
}

const pageSize = 500;
/** The server is asked to end a watch after this long, plus up to as much again, so that watches do not all end together. */
const watchSeconds = 150;
/** A watch that says nothing for so long is taken for hung; the server sends a bookmark about once a minute. */
const silenceLimitMs = 120_000;
/** A watch that ended sooner counts as a failure when the next one is timed. */
const briefWatchMs = 1_000;
/** A type the server does not know (its CRD is missing) is asked for this often. */
const unservedRetryMs = 10_000;
/** Answers "not served" in a row before known objects are given up; one alone may be an API server that is starting. */
const unservedConfirmations = 3;

interface WatchLine<T> {
  type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR";
  object: T;
}

interface ListPage<T> {
  metadata?: { resourceVersion?: string; continue?: string };
  items?: T[];
}

type Ending = "closed" | "expired" | "silent";

export class Reflector<T extends KubeObject> extends StoredCollection<T> implements AsyncDisposable {
  readonly synced: Promise<void>;
  readonly #options: ReflectorOptions<T>;
  readonly #tasks: TaskGroup;
  readonly #backoff: Backoff;
  readonly #settle: PromiseWithResolvers<void> = Promise.withResolvers();
  #resourceVersion: string | undefined;
  #unserved = 0;
  #freshAt: number;

  constructor(options: ReflectorOptions<T>) {
    super();
    this.#options = options;
    this.#freshAt = options.clock.monotonic();
    this.#backoff = new Backoff({ initialMs: 200, maxMs: 30_000, jitter: 0.3, random: options.random });
    this.synced = this.#settle.promise;
    // Nobody may be waiting; a rejection on disposal is then not an accident.
    this.synced.catch(() => undefined);
    this.#tasks = new TaskGroup(options.log);
    options.metrics?.track(options.type.plural, () => (options.clock.monotonic() - this.#freshAt) / 1000);
    this.#tasks.run(`watch of ${options.type.plural}`, (signal) => this.#run(signal));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tasks[Symbol.asyncDispose]();
    this.#options.metrics?.untrack(this.#options.type.plural);
    this.#settle.reject(new MeshError("KUBE_CLOSED", `the collection of ${this.#options.type.plural} was closed before its first list`));
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { type, clock, log, metrics } = this.#options;
    while (!signal.aborted) {
      let waitMs = 0;
      try {
        if (this.#resourceVersion === undefined) await this.#relist(signal);
        const startedAt = clock.monotonic();
        const ending = await this.#watch(signal);
        metrics?.restarts.inc({ resource: type.plural, reason: ending });
        if (ending === "expired") this.#resourceVersion = undefined;
        // A server that closes at once, every time, must not be asked in a tight loop.
        if (clock.monotonic() - startedAt < briefWatchMs) waitMs = this.#backoff.next();
      } catch (thrown) {
        if (signal.aborted) return;
        const error = MeshError.from(thrown, "KUBE_UNAVAILABLE");
        waitMs = this.#failed(error);
        // Expiry and missing definitions are the API's ordinary course.
        const report = error.code === "KUBE_NOT_FOUND" || error.code === "KUBE_GONE" ? log.debug : log.warn;
        report("the watch failed and will be resumed", { resource: type.plural, error, code: error.code, retryMs: Math.round(waitMs) });
      }
      if (waitMs > 0) await clock.sleep(waitMs, { signal }).catch(() => undefined);
    }
  }

  /** Accounts for a failure and says how long to wait. */
  #failed(error: MeshError): number {
    const { type, metrics, log } = this.#options;
    if (error.code === "KUBE_GONE") {
      metrics?.restarts.inc({ resource: type.plural, reason: "expired" });
      this.#resourceVersion = undefined;
      return this.#backoff.next();
    }
    if (error.code !== "KUBE_NOT_FOUND") {
      metrics?.restarts.inc({ resource: type.plural, reason: "error" });
      return this.#backoff.next();
    }
    metrics?.restarts.inc({ resource: type.plural, reason: "not-served" });
    this.#resourceVersion = undefined;
    this.#unserved += 1;
    if (this.#unserved === 1)
      log.info("the API server does not serve this type; it counts as empty until it does", { resource: type.plural, group: type.group });
    if (this.#unserved >= unservedConfirmations || this.store.size === 0) {
      this.#replaceAll([]);
      this.#settle.resolve();
    }
    return unservedRetryMs;
  }

  async #relist(signal: AbortSignal): Promise<void> {
    const { type, selection, transport } = this.#options;
    const items: T[] = [];
    let cursor: string | undefined;
    let resourceVersion = "";
    do {
      const query = queryOf({ ...selectionQuery(selection), limit: pageSize, continue: cursor });
      const page = await transport.json<ListPage<T>>({ method: "GET", path: `${resourcePath(type, selection)}${query}`, signal });
      for (const item of page.items ?? []) items.push(this.#prepare(item));
      resourceVersion = page.metadata?.resourceVersion ?? resourceVersion;
      cursor = page.metadata?.continue;
    } while (cursor !== undefined && cursor !== "");
    this.#unserved = 0;
    this.#resourceVersion = resourceVersion;
    this.#fresh();
    this.#replaceAll(items);
    this.#settle.resolve();
  }

  #replaceAll(items: readonly T[]): void {
    const present = new Map(items.map((item) => [objectKey(item), item]));
    const gone = [...this.store.entries()].flatMap(([key]) => (present.has(key) ? [] : (this.store.put(key, undefined) ?? [])));
    const changed = [...present].flatMap(([key, item]) => {
      const known = this.store.get(key);
      return known !== undefined && isDeepStrictEqual(known, item) ? [] : (this.store.put(key, item) ?? []);
    });
    this.store.emit([...gone, ...changed]);
  }

  async #watch(stop: AbortSignal): Promise<Ending> {
    const { type, selection, transport, clock, random } = this.#options;
    const query = queryOf({
      ...selectionQuery(selection),
      watch: true,
      allowWatchBookmarks: true,
      resourceVersion: this.#resourceVersion,
      timeoutSeconds: Math.round(watchSeconds * (1 + random())),
    });
    const request = { method: "GET", path: `${resourcePath(type, selection)}${query}` };
    const silence = new AbortController();
    const hung = (): void => silence.abort(new MeshError("KUBE_UNAVAILABLE", `${request.path}: nothing was heard for ${silenceLimitMs / 1000} s`));
    let timer = clock.schedule(silenceLimitMs, hung);
    try {
      for await (const lines of transport.lines({ ...request, signal: AbortSignal.any([stop, silence.signal]) })) {
        timer[Symbol.dispose]();
        timer = clock.schedule(silenceLimitMs, hung);
        this.#fresh();
        if (lines.length > 0) this.#backoff.reset();
        if (this.#consume(lines, request)) return "expired";
      }
      return "closed";
    } catch (thrown) {
      if (silence.signal.aborted && !stop.aborted) return "silent";
      throw thrown;
    } finally {
      timer[Symbol.dispose]();
    }
  }

  /** Applies one batch of watch events; true when the server says that our resourceVersion is too old. */
  #consume(lines: readonly string[], request: { method: string; path: string }): boolean {
    const events: CollectionEvent<T>[] = [];
    try {
      for (const line of lines) {
        if (line.trim() === "") continue;
        const { type, object } = parseLine<T>(line);
        if (type === "ERROR") {
          const status = object as { code?: number; message?: string; reason?: string };
          if (status.code === 410) return true;
          throw statusError(status.code ?? 500, status, request);
        }
        this.#resourceVersion = object.metadata.resourceVersion ?? this.#resourceVersion;
        if (type === "BOOKMARK") continue;
        const event = this.store.put(objectKey(object), type === "DELETED" ? undefined : this.#prepare(object));
        if (event !== undefined) events.push(event);
      }
      return false;
    } finally {
      this.store.emit(events);
    }
  }

  /** List items carry no kind; managedFields are most of many objects' bytes and nobody reads them. */
  #prepare(object: T): T {
    const { type, reduce } = this.#options;
    object.apiVersion ??= apiVersionOf(type);
    object.kind ??= type.kind;
    delete (object.metadata as { managedFields?: unknown }).managedFields;
    return reduce === undefined ? object : reduce(object);
  }

  #fresh(): void {
    this.#freshAt = this.#options.clock.monotonic();
  }
}

function parseLine<T>(line: string): WatchLine<T> {
  try {
    const parsed = JSON.parse(line) as Partial<WatchLine<T>>;
    if (typeof parsed.type === "string" && typeof parsed.object === "object" && parsed.object !== null) return parsed as WatchLine<T>;
  } catch (cause) {
    throw new MeshError("KUBE_UNAVAILABLE", "the watch sent a line that is not JSON; is a proxy cutting the stream?", { cause });
  }
  throw new MeshError("KUBE_UNAVAILABLE", "the watch sent a line that is not a watch event");
}
