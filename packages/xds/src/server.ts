/**
 * The discovery server: who may connect, what each client is told, and what each client answered (controller contract 6, waypoint
 * contract 4). Both protocols, delta and state of the world, in one session each; see client-session.ts for the order of what is sent.
 */
import type { AggregatedDiscoveryServiceServer, Node } from "@fairway/protocol";
import { type Clock, errorCode, type Logger, MeshError, TaskGroup, type Watch, Watched } from "@fairway/runtime";
import type { Metadata, ServerDuplexStream } from "@grpc/grpc-js";
import { status } from "@grpc/grpc-js";
import { ClientSession, type SessionLimits, type XdsTypeStatus } from "./client-session.ts";
import type { ServedScope, XdsPeer, XdsScope } from "./mesh-source.ts";
import { type OpenStream, openStream } from "./open-stream.ts";
import { ScopeFeeds } from "./scope-feeds.ts";
import { type Dialect, deltaDialect, SotwDialect } from "./sotw-dialect.ts";

/** What a client says of itself; only `authorize` decides whether it is true. */
export interface XdsNode {
  readonly id: string;
  /** `NAMESPACE`, `NODE_NAME`, … (controller contract 6.2). */
  readonly metadata: Readonly<Record<string, unknown>>;
}

export interface XdsClientStatus {
  readonly nodeId: string;
  readonly peer: XdsPeer;
  /** Address and port of the client's end. */
  readonly address: string;
  readonly connectedAt: number;
  /** By type URL; types not subscribed are absent. */
  readonly types: ReadonlyMap<string, XdsTypeStatus>;
}

export interface XdsServerLimits extends SessionLimits {
  readonly maxClients: number;
  /** From the opening of a stream to the end of its authorization. */
  readonly authorizationTimeoutMs: number;
}

/** What metrics count. */
export interface XdsServerObserver {
  /** A response was sent. */
  readonly pushed?: (typeUrl: string) => void;
  /** A client refused a response, or a part of it. */
  readonly rejected?: (typeUrl: string) => void;
  /** A request spoke of a response that is not the last one. */
  readonly expiredNonce?: (typeUrl: string) => void;
}

export interface XdsServerOptions {
  /** Called for the first client of a scope. */
  readonly openScope: (scope: XdsScope) => ServedScope;
  /**
   * Decides by the call's headers and what the client says of itself. A MeshError with the code XDS_PERMISSION_DENIED answers
   * PERMISSION_DENIED, anything else thrown UNAUTHENTICATED; the client is told no more than that, the log has the reason.
   */
  authorize(
    /** `address`: of the client's end of the connection, with its port. */
    request: { readonly metadata: Metadata; readonly node: XdsNode; readonly address: string },
    options: { signal: AbortSignal },
  ): Promise<XdsPeer>;
  readonly clock: Clock;
  readonly log: Logger;
  /** New streams are refused until this is true. */
  readonly ready: Watch<boolean>;
  readonly debounceMs?: number;
  /** Sent as the control plane's identifier. */
  readonly identifier?: string;
  readonly observer?: XdsServerObserver;
  readonly limits?: Partial<XdsServerLimits>;
}

export interface XdsServer extends AsyncDisposable {
  /** For `grpcServer.addService(AggregatedDiscoveryServiceService, …)`. */
  readonly service: AggregatedDiscoveryServiceServer;
  /** By connection id. */
  readonly clients: Watch<ReadonlyMap<string, XdsClientStatus>>;
}

export const defaultXdsServerLimits: XdsServerLimits = {
  maxClients: 10_000,
  authorizationTimeoutMs: 10_000,
  answerTimeoutMs: 60_000,
  removalPatienceMs: 10_000,
  siblingGraceMs: 1_000,
  maxNamesPerType: 100_000,
};

const defaultDebounceMs = 15;
const statusIntervalMs = 100;

interface Client {
  readonly session: ClientSession;
  readonly describe: () => XdsClientStatus;
  readonly leave: () => void;
}

/** The first request of a stream, and the stream. */
interface Opening<Request, Response> {
  readonly stream: OpenStream;
  readonly raw: ServerDuplexStream<Request, Response>;
  readonly first: Request;
  /** `served`: the type URLs that are answered. */
  readonly dialect: (served: Iterable<string>) => Dialect<Request, Response>;
}

/** Nothing is sent before `ready`; the service may be added to a gRPC server at once. */
export function createXdsServer(options: XdsServerOptions): XdsServer {
  const server = new DiscoveryServer(options);
  return {
    service: {
      deltaAggregatedResources: (stream) => server.open(stream, () => deltaDialect),
      streamAggregatedResources: (stream) => server.open(stream, (served) => new SotwDialect(served)),
    },
    clients: server.status,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

class DiscoveryServer implements AsyncDisposable {
  readonly #options: XdsServerOptions;
  readonly #limits: XdsServerLimits;
  readonly #clients = new Map<string, Client>();
  readonly #status = new Watched<ReadonlyMap<string, XdsClientStatus>>(new Map());
  readonly #tasks: TaskGroup;
  readonly #scopes: ScopeFeeds;
  /** Clients, and those that may become one. */
  readonly #streams = new Set<OpenStream>();
  #opened = 0;
  #publishing: Disposable | undefined;

  constructor(options: XdsServerOptions) {
    const { clock, openScope, debounceMs = defaultDebounceMs } = options;
    this.#options = options;
    this.#limits = { ...defaultXdsServerLimits, ...options.limits };
    this.#tasks = new TaskGroup(options.log);
    this.#scopes = new ScopeFeeds({ openScope, clock, debounceMs });
  }

  get status(): Watch<ReadonlyMap<string, XdsClientStatus>> {
    return this.#status;
  }

  /** Takes a new stream: waits for its first request, authorizes it, serves it. */
  open<Request extends { readonly node: Node | undefined; readonly typeUrl: string }, Response>(
    raw: ServerDuplexStream<Request, Response>,
    dialect: Opening<Request, Response>["dialect"],
  ): void {
    const { clock, log, ready } = this.#options;
    const stream = openStream(String(++this.#opened), raw, (ended) => this.#forget(ended));
    this.#streams.add(stream);
    if (this.#tasks.signal.aborted || !ready.current) {
      stream.end(status.UNAVAILABLE, "server is not ready");
      return;
    }
    if (this.#streams.size > this.#limits.maxClients) {
      stream.end(status.RESOURCE_EXHAUSTED, "too many clients");
      return;
    }
    const deadline = clock.schedule(this.#limits.authorizationTimeoutMs, () => stream.end(status.DEADLINE_EXCEEDED, "no request in time"));
    stream.gone.addEventListener("abort", () => deadline[Symbol.dispose](), { once: true });
    raw.once("data", (first: Request) => {
      raw.pause();
      this.#tasks.run("accepting a discovery client", async (closing) => {
        try {
          const node = await this.#authorize(stream, raw.metadata, first.node, AbortSignal.any([stream.gone, closing]));
          deadline[Symbol.dispose]();
          if (node !== undefined && !stream.gone.aborted) this.#serve({ stream, raw, first, dialect }, node);
        } catch (thrown) {
          log.error("a discovery stream failed", { error: MeshError.from(thrown, "XDS_STREAM_FAILED") });
          stream.end(status.INTERNAL, "the request could not be served");
        }
      });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closing = this.#tasks[Symbol.asyncDispose]();
    for (const stream of [...this.#streams]) stream.end(status.UNAVAILABLE, "server is shutting down");
    this.#scopes[Symbol.dispose]();
    this.#publishing?.[Symbol.dispose]();
    await closing;
  }

  #forget(stream: OpenStream): void {
    this.#streams.delete(stream);
    this.#clients.get(stream.id)?.leave();
    if (this.#clients.delete(stream.id)) this.#publish();
  }

  /** The node of the first request and who it is; undefined when it was refused. */
  async #authorize(
    stream: OpenStream,
    metadata: Metadata,
    claimed: Node | undefined,
    signal: AbortSignal,
  ): Promise<{ readonly node: XdsNode; readonly peer: XdsPeer } | undefined> {
    const { authorize, log } = this.#options;
    if (claimed === undefined || claimed.id.length > maxNodeIdLength) {
      stream.end(status.INVALID_ARGUMENT, "the first request must carry the node, with an id of ordinary length");
      return undefined;
    }
    const node = { id: claimed.id, metadata: claimed.metadata ?? {} };
    const { address } = stream;
    try {
      return { node, peer: await authorize({ metadata, node, address }, { signal }) };
    } catch (thrown) {
      if (signal.aborted) return undefined;
      const denied = errorCode(thrown) === "XDS_PERMISSION_DENIED";
      log.warn("discovery client refused", { node: node.id, address, error: MeshError.from(thrown, "XDS_UNAUTHENTICATED") });
      stream.end(denied ? status.PERMISSION_DENIED : status.UNAUTHENTICATED, denied ? "permission denied" : "authentication failure");
      return undefined;
    }
  }

  #serve<Request extends { readonly typeUrl: string }, Response>(
    { stream, raw, first, dialect }: Opening<Request, Response>,
    { node, peer }: { readonly node: XdsNode; readonly peer: XdsPeer },
  ): void {
    const { clock, log, observer, identifier = "fairway" } = this.#options;
    const { address } = stream;
    let words: Dialect<Request, Response> = dialect([]);
    const lease = this.#scopes.join(peer.scope, (facts) => {
      words = dialect(facts.sources.map(({ typeUrl }) => typeUrl));
      return new ClientSession(
        { ...facts, clock, identifier, limits: this.#limits },
        {
          send: (response) => {
            const message = words.write(response);
            if (message === undefined) return false;
            observer?.pushed?.(response.typeUrl);
            raw.write(message);
            return true;
          },
          rejected: (typeUrl) => observer?.rejected?.(typeUrl),
          statusChanged: () => this.#publish(),
          end: (reason) => {
            log.warn("discovery client cut off", { node: node.id, address, reason });
            if (reason === "answer-timeout") stream.end(status.ABORTED, "no answer to the last response in time");
            else stream.end(status.RESOURCE_EXHAUSTED, "too many names subscribed");
          },
        },
        { awaitsSiblings: meshProxy.test(node.id) },
      );
    });
    const { session } = lease;
    const connectedAt = clock.now();
    this.#clients.set(stream.id, {
      session,
      describe: () => ({ nodeId: node.id, peer, address, connectedAt, types: new Map(session.types) }),
      leave: () => {
        session.close();
        lease[Symbol.dispose]();
      },
    });
    this.#publish();
    const { namespace, serviceAccount } = peer.identity;
    log.info("discovery client connected", { id: stream.id, node: node.id, address, scope: peer.scope.kind, serviceAccount: `${namespace}/${serviceAccount}` });
    const unknown = new Set<string>();
    const handle = (request: Request): void => {
      const read = words.read(request);
      if (read === "stale") {
        observer?.expiredNonce?.(request.typeUrl);
        return;
      }
      if (session.handle(read) || unknown.has(request.typeUrl) || unknown.size >= maxUnknownLogged) return;
      unknown.add(request.typeUrl);
      log.debug("a type that is not served was asked for", { typeUrl: request.typeUrl.slice(0, maxLoggedName) });
    };
    handle(first);
    raw.on("data", handle);
    raw.resume();
  }

  /** Status of all clients at most ten times a second, however many answers come. */
  #publish(): void {
    this.#publishing ??= this.#options.clock.schedule(statusIntervalMs, () => {
      this.#publishing = undefined;
      this.#status.set(new Map([...this.#clients].map(([id, { describe }]) => [id, describe()])));
    });
  }
}

/** Proxies that subscribe to every type when they connect. */
const meshProxy = /^(?:ztunnel|waypoint)~/;
const maxNodeIdLength = 1_024;
const maxUnknownLogged = 8;
const maxLoggedName = 200;
