/** The sources of every scope that somebody watches, and who watches them. Scopes are opened for their first client and closed after the last. */
import type { Clock } from "@fairway/runtime";
import { type ChangeBatch, ChangeFeed } from "./change-feed.ts";
import type { ClientSession } from "./client-session.ts";
import type { ResourceSource, ServedScope, XdsScope } from "./mesh-source.ts";

/** What a session reads of its scope. */
export interface ScopeFacts {
  readonly sources: readonly ResourceSource[];
  /** Names that changed at the source of a type and were not handed to the sessions yet. */
  stale(typeUrl: string): ReadonlySet<string>;
  currentEpoch(): number;
}

interface Open {
  readonly served: ServedScope;
  readonly feed: ChangeFeed;
  readonly facts: ScopeFacts;
  readonly sessions: Set<ClientSession>;
}

export interface ScopeFeedsOptions {
  readonly openScope: (scope: XdsScope) => ServedScope;
  readonly clock: Clock;
  readonly debounceMs: number;
}

export class ScopeFeeds implements Disposable {
  readonly #options: ScopeFeedsOptions;
  readonly #open = new Map<string, Open>();
  #opened = 0;

  constructor(options: ScopeFeedsOptions) {
    this.#options = options;
  }

  /** Adds the session that `create` makes to the scope, until the lease is disposed. */
  join(scope: XdsScope, create: (facts: ScopeFacts) => ClientSession): { readonly session: ClientSession } & Disposable {
    const key = scope.kind === "grpc" ? `grpc ${++this.#opened}` : keyOf(scope);
    const open = this.#open.get(key) ?? this.#openScope(scope);
    const session = create(open.facts);
    this.#open.set(key, open);
    open.sessions.add(session);
    return {
      session,
      [Symbol.dispose]: () => {
        if (!open.sessions.delete(session) || open.sessions.size > 0) return;
        this.#open.delete(key);
        close(open);
      },
    };
  }

  [Symbol.dispose](): void {
    for (const open of this.#open.values()) close(open);
    this.#open.clear();
  }

  #openScope(scope: XdsScope): Open {
    const { openScope, clock, debounceMs } = this.#options;
    const served = openScope(scope);
    const sessions = new Set<ClientSession>();
    const feed = new ChangeFeed(served.sources, { clock, debounceMs, onBatch: (batch) => distribute(sessions, batch) });
    const facts = { sources: served.sources, stale: (typeUrl: string) => feed.stale(typeUrl), currentEpoch: () => feed.epoch };
    return { served, feed, facts, sessions };
  }
}

function distribute(sessions: ReadonlySet<ClientSession>, { epoch, names }: ChangeBatch): void {
  for (const session of [...sessions]) {
    for (const [typeUrl, changed] of names) session.changed(typeUrl, changed, epoch);
    session.flush();
  }
}

function close({ feed, served }: Open): void {
  feed[Symbol.dispose]();
  served[Symbol.dispose]();
}

function keyOf(scope: Exclude<XdsScope, { kind: "grpc" }>): string {
  return scope.kind === "node" ? "node" : `waypoint ${scope.waypoint}`;
}
