/** One client of the Envoy types in either protocol, without a network: the clock and the answers are the test's. */
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse } from "@fairway/protocol";
import { clusterTypeUrl, endpointTypeUrl, listenerTypeUrl, routeTypeUrl } from "@fairway/protocol";
import { ManualClock } from "@fairway/runtime";
import { ChangeFeed } from "./change-feed.ts";
import { ClientSession, type XdsTypeStatus } from "./client-session.ts";
import { MutableResourceSource } from "./resource-source.ts";
import { type Dialect, deltaDialect, SotwDialect } from "./sotw-dialect.ts";
import { emptyRequest } from "./subscription.ts";

export type Type = "cds" | "eds" | "lds" | "rds";
const typeUrls: Readonly<Record<Type, string>> = { cds: clusterTypeUrl, eds: endpointTypeUrl, lds: listenerTypeUrl, rds: routeTypeUrl };
/** Names and bodies; undefined removes. */
export type Change = Readonly<Partial<Record<Type, Readonly<Record<string, string | undefined>>>>>;

const types = Object.keys(typeUrls) as Type[];

interface Told<Response> {
  readonly type: Type;
  readonly text: string;
  readonly response: Response;
}

export interface Conversation<Request, Response> {
  readonly clock: ManualClock;
  /** Changes the sources; the session hears of it after the debounce. */
  set(change: Change): void;
  /** The same, and waits for the debounce. */
  change(change: Change): Promise<void>;
  /** Type of the oldest response that was not answered. */
  readonly oldest: Type | undefined;
  ask(type: Type, request?: Partial<Request>): void;
  /** Answers the oldest response that was not answered, with what else the request says. */
  ack(request?: Partial<Request>): void;
  nack(message: string, request?: Partial<Request>): void;
  ackAll(): void;
  /** One text per response since the last call: the type, what it carries, what it removes. */
  heard(): readonly string[];
  readonly told: readonly Told<Response>[];
  readonly stale: number;
  status(type: Type): XdsTypeStatus | undefined;
}

export function deltaConversation(): Conversation<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
  return converse(deltaDialect, emptyRequest, ({ resources, removedResources }) => [
    ...resources.map(({ name }) => `+${name}`),
    ...removedResources.map((name) => `-${name}`),
  ]);
}

export function sotwConversation(): Conversation<DiscoveryRequest, DiscoveryResponse> {
  return converse(
    new SotwDialect(Object.values(typeUrls)),
    (typeUrl) => ({ typeUrl, node: undefined, versionInfo: "", resourceNames: [], responseNonce: "", errorDetail: undefined }),
    ({ resources }) => resources.map(({ value }) => Buffer.from(value).toString()),
  );
}

function converse<
  Request extends { readonly typeUrl: string; readonly responseNonce: string; readonly errorDetail: DeltaDiscoveryRequest["errorDetail"] },
  Response extends { readonly nonce: string; readonly typeUrl: string },
>(
  dialect: Dialect<Request, Response>,
  empty: (typeUrl: string) => Request,
  textOf: (response: Response) => readonly string[],
): Conversation<Request, Response> {
  const clock = new ManualClock();
  const sources = types.map((type) => new MutableResourceSource(typeUrls[type]));
  const told: Told<Response>[] = [];
  const unanswered: Response[] = [];
  let heard = 0;
  let stale = 0;
  const feed = new ChangeFeed(sources, {
    clock,
    debounceMs: 15,
    onBatch: ({ epoch, names }) => {
      for (const [typeUrl, changed] of names) session.changed(typeUrl, changed, epoch);
      session.flush();
    },
  });
  const session = new ClientSession(
    {
      clock,
      sources,
      identifier: "test",
      limits: { answerTimeoutMs: 60_000, removalPatienceMs: 10_000, siblingGraceMs: 1_000, maxNamesPerType: 100 },
      stale: (typeUrl) => feed.stale(typeUrl),
      currentEpoch: () => feed.epoch,
    },
    {
      send: (delta) => {
        const response = dialect.write(delta);
        if (response === undefined) return false;
        const type = types.find((candidate) => typeUrls[candidate] === delta.typeUrl) ?? "cds";
        told.push({ type, response, text: [type, ...textOf(response).toSorted()].join(" ") });
        unanswered.push(response);
        return true;
      },
      end: () => undefined,
      statusChanged: () => undefined,
      rejected: () => undefined,
    },
    { awaitsSiblings: false },
  );
  const say = (request: Request): void => {
    const read = dialect.read(request);
    if (read === "stale") stale++;
    else session.handle(read);
  };
  const answer = (request: Partial<Request>): void => {
    const response = unanswered.shift();
    if (response !== undefined) say({ ...empty(response.typeUrl), responseNonce: response.nonce, ...request });
  };
  const set = (change: Change): void => {
    for (const [index, type] of types.entries()) {
      const entries = Object.entries(change[type] ?? {});
      sources[index]?.update({
        set: entries.flatMap(([name, body]) => (body === undefined ? [] : [{ name, body: Buffer.from(body) }])),
        delete: entries.flatMap(([name, body]) => (body === undefined ? [name] : [])),
      });
    }
  };
  return {
    clock,
    told,
    get stale() {
      return stale;
    },
    get oldest() {
      const [response] = unanswered;
      return types.find((type) => typeUrls[type] === response?.typeUrl);
    },
    set,
    async change(change) {
      set(change);
      await clock.advance(15);
    },
    ask: (type, request = {}) => say({ ...empty(typeUrls[type]), ...request }),
    ack: (request = {}) => answer(request),
    nack: (message, request = {}) => answer({ ...request, errorDetail: { code: 3, message, details: [] } } as Partial<Request>),
    ackAll() {
      while (unanswered.length > 0) answer({});
    },
    heard() {
      const fresh = told.slice(heard).map(({ text }) => text);
      heard = told.length;
      return fresh;
    },
    status: (type) => session.types.get(typeUrls[type]),
  };
}
