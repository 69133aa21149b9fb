/** watch: the changes after a version, as a stream of events; resumable while the history reaches back. */
import type { Clock } from "@fairway/runtime";
import { ApiError } from "./api-error.ts";
import { encodeObject, type ObjectForm, objectForm, type ResourceExchange } from "./exchange.ts";
import type { JsonObject } from "./json.ts";
import type { KubeObject } from "./kube-object.ts";
import { inVersion } from "./object-writer.ts";
import { includedObject, positive, selectorOf } from "./read-handlers.ts";
import { apiVersionOf } from "./resource-types.ts";
import type { ObjectPredicate } from "./selectors.ts";
import type { Change, Storage } from "./storage.ts";
import { metadataOnly, tableFrom } from "./tables.ts";

export interface WatchLimits {
  /** Watches open at once. */
  readonly maxWatches: number;
  /** A watcher whose unread events exceed this is dropped; it resumes from the last version it saw. */
  readonly maxUnreadBytes: number;
  /** How long a watch lives when its client names no timeout. */
  readonly defaultTimeoutMs: number;
  readonly bookmarkEveryMs: number;
}

export const defaultWatchLimits: WatchLimits = {
  maxWatches: 4096,
  maxUnreadBytes: 32 * 1024 * 1024,
  defaultTimeoutMs: 30 * 60_000,
  bookmarkEveryMs: 60_000,
};

const initialEventsEnd = "k8s.io/initial-events-end";

export class Watcher {
  readonly #storage: Storage;
  readonly #clock: Clock;
  readonly #limits: WatchLimits;
  #open = 0;

  constructor(storage: Storage, clock: Clock, limits: WatchLimits) {
    this.#storage = storage;
    this.#clock = clock;
    this.#limits = limits;
  }

  /** How many watches are open. */
  get open(): number {
    return this.#open;
  }

  /** Streams until the client leaves, the timeout passes, the type goes away, or the server closes. */
  async watch(exchange: ResourceExchange): Promise<void> {
    if (this.#open >= this.#limits.maxWatches) throw ApiError.tooManyRequests("too many watches are open");
    const { info, type, response } = exchange;
    const matches = watchPredicate(exchange);
    const form = objectForm(exchange.request.headers.accept);
    const bookmarks = info.query.get("allowWatchBookmarks") === "true" || info.query.get("allowWatchBookmarks") === "1";
    const initial = info.query.get("sendInitialEvents");
    const from = positive(info.query.get("resourceVersion"), "resourceVersion");
    const timeoutMs = positive(info.query.get("timeoutSeconds"), "timeoutSeconds") * 1000 || this.#limits.defaultTimeoutMs;
    const writer = new EventWriter(exchange, form, () => this.#clock.now());
    // Everything up to the subscription is one synchronous step: no change can fall between.
    const replayState = initial === "true" || (initial === null && from === 0);
    const backlog = replayState ? [] : this.#storage.since(type.table, from === 0 ? this.#storage.revision : from);
    response.writeHead(200, { "content-type": "application/json", "cache-control": "no-cache, private" });
    response.flushHeaders();
    this.#open += 1;
    const ended = Promise.withResolvers<void>();
    const onChange = (change: Change): void => {
      writer.change(change, matches);
      if (response.writableLength > this.#limits.maxUnreadBytes) response.destroy();
    };
    using _subscription = this.#storage.subscribe(type.table, onChange);
    using timers = new DisposableStack();
    timers.use(this.#clock.schedule(timeoutMs, () => ended.resolve()));
    exchange.signal.addEventListener("abort", () => ended.resolve(), { once: true });
    response.once("close", () => ended.resolve());
    try {
      if (replayState) {
        const namespace = info.namespace === "" ? undefined : info.namespace;
        for (const object of this.#storage.list(type.table, namespace)) if (matches(object)) writer.object("ADDED", object);
        if (initial === "true" && bookmarks) writer.bookmark(type, this.#storage.revision, { [initialEventsEnd]: "true" });
      }
      for (const change of backlog) onChange(change);
      if (bookmarks) this.#bookmarks(writer, exchange, timers);
      if (!exchange.signal.aborted) await ended.promise;
    } finally {
      this.#open -= 1;
      if (!response.destroyed) response.end();
    }
  }

  #bookmarks(writer: EventWriter, exchange: ResourceExchange, timers: DisposableStack): void {
    const next = (): void => {
      if (exchange.response.destroyed || exchange.response.writableEnded) return;
      writer.bookmark(exchange.type, this.#storage.revision, {});
      timers.use(this.#clock.schedule(this.#limits.bookmarkEveryMs, next));
    };
    timers.use(this.#clock.schedule(this.#limits.bookmarkEveryMs, next));
  }
}

function watchPredicate({ type, info }: ResourceExchange): ObjectPredicate {
  const selected = selectorOf(type, info);
  return (object) => (info.namespace === "" || !type.namespaced || object.metadata.namespace === info.namespace) && selected(object);
}

class EventWriter {
  readonly #exchange: ResourceExchange;
  readonly #form: ObjectForm;
  readonly #nowMs: () => number;
  #headers = true;

  constructor(exchange: ResourceExchange, form: ObjectForm, nowMs: () => number) {
    this.#exchange = exchange;
    this.#form = form;
    this.#nowMs = nowMs;
  }

  /** A change as this watcher sees it: an object that stops matching is deleted for it, one that starts is added. */
  change({ type, object, previous }: Change, matches: ObjectPredicate): void {
    const now = type !== "DELETED" && matches(object);
    const before = previous !== undefined && matches(previous);
    if (now) this.object(before ? "MODIFIED" : "ADDED", object);
    else if (before) this.object("DELETED", object);
  }

  object(event: string, object: KubeObject): void {
    const { type, info } = this.#exchange;
    if (this.#form === "object") this.#write(`{"type":"${event}","object":${encodeObject(object, type)}}\n`);
    else if (this.#form === "metadata") this.#write(`${JSON.stringify({ type: event, object: metadataOnly(object) })}\n`);
    else {
      const metadata: JsonObject = { resourceVersion: object.metadata.resourceVersion };
      const table = tableFrom(type, [inVersion(object, type)], metadata, { nowMs: this.#nowMs(), include: includedObject(info.query), headers: this.#headers });
      this.#headers = false;
      this.#write(`${JSON.stringify({ type: event, object: table })}\n`);
    }
  }

  bookmark(type: ResourceExchange["type"], revision: number, annotations: Readonly<Record<string, string>>): void {
    const metadata = { resourceVersion: String(revision), creationTimestamp: null, ...(Object.keys(annotations).length === 0 ? {} : { annotations }) };
    this.#write(`${JSON.stringify({ type: "BOOKMARK", object: { kind: type.kind, apiVersion: apiVersionOf(type), metadata } })}\n`);
  }

  #write(line: string): void {
    const { response } = this.#exchange;
    if (!response.destroyed && !response.writableEnded) response.write(line);
  }
}
