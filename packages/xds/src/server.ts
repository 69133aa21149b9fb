/**
 * The delta discovery server: who may connect, what each client is told, and what each client answered (controller contract 6).
 * Delta only. The sources' order is the push order; see client-session.ts for why it matters.
 */
import type { AggregatedDiscoveryServiceServer, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node } from "@fairway/protocol";
import { type Clock, errorCode, type Logger, MeshError, TaskGroup, type Watch, Watched } from "@fairway/runtime";
import type { Metadata, ServerDuplexStream } from "@grpc/grpc-js";
import { status } from "@grpc/grpc-js";
import { type ChangeBatch, ChangeFeed } from "./change-feed.ts";
import { ClientSession, type SessionEnvironment, type SessionLimits, type XdsTypeStatus } from "./client-session.ts";
import type { ResourceSource, XdsPeer } from "./mesh-source.ts";

type DeltaStream = ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

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

export interface XdsServerOptions {
  /** In push order: what must be known first comes first. */
  readonly sources: readonly ResourceSource[];
  /**
   * Decides by the call's headers and what the client says of itself. A MeshError with the code XDS_PERMISSION_DENIED answers
   * PERMISSION_DENIED, anything else thrown UNAUTHENTICATED; the client is told no more than that, the log has the reason.
   */
  authorize(request: { readonly metadata: Metadata; readonly node: XdsNode }, options: { signal: AbortSignal }): Promise<XdsPeer>;
  readonly clock: Clock;
  readonly log: Logger;
  /** New streams are refused until this is true. */
  readonly ready: Watch<boolean>;
  readonly debounceMs?: number;
  /** Sent as the control plane's identifier. */
  readonly identifier?: string;
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
  readonly stream: OpenStream;
}

/** One stream with its end: whoever ends it first wins, and everything that hangs on it is let go. */
interface OpenStream {
  readonly id: string;
  readonly raw: DeltaStream;
  /** Aborts when the stream ended. */
  readonly gone: AbortSignal;
  end(code: status, details: string): void;
}

/** Nothing is sent before `ready`; the service may be added to a gRPC server at once. */
export function createXdsServer(options: XdsServerOptions): XdsServer {
  const server = new DeltaServer(options);
  return {
    service: {
      deltaAggregatedResources: (stream) => server.open(stream),
      streamAggregatedResources: (stream) => void stream.emit("error", { code: status.UNIMPLEMENTED, details: "only the delta protocol is served" }),
    },
    clients: server.status,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

class DeltaServer implements AsyncDisposable {
  readonly #options: XdsServerOptions;
  readonly #limits: XdsServerLimits;
  readonly #clients = new Map<string, Client>();
  readonly #status = new Watched<ReadonlyMap<string, XdsClientStatus>>(new Map());
  readonly #tasks: TaskGroup;
  readonly #feed: ChangeFeed;
  readonly #environment: SessionEnvironment;
  /** Clients, and those that may become one. */
  readonly #streams = new Set<OpenStream>();
  #opened = 0;
  #publishing: Disposable | undefined;

  constructor(options: XdsServerOptions) {
    const { clock, sources, debounceMs = defaultDebounceMs, identifier = "fairway" } = options;
    this.#options = options;
    this.#limits = { ...defaultXdsServerLimits, ...options.limits };
    this.#tasks = new TaskGroup(options.log);
    this.#feed = new ChangeFeed(sources, { clock, debounceMs, onBatch: (batch) => this.#distribute(batch) });
    this.#environment = {
      clock,
      sources,
      identifier,
      limits: this.#limits,
      stale: (typeUrl) => this.#feed.stale(typeUrl),
      currentEpoch: () => this.#feed.epoch,
    };
  }

  get status(): Watch<ReadonlyMap<string, XdsClientStatus>> {
    return this.#status;
  }

  /** Takes a new stream: waits for its first request, authorizes it, serves it. */
  open(raw: DeltaStream): void {
    const { clock, log, ready } = this.#options;
    const stream = this.#track(raw);
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
    raw.once("data", (first: DeltaDiscoveryRequest) => {
      raw.pause();
      this.#tasks.run("accepting a discovery client", async (closing) => {
        try {
          const client = await this.#accept(stream, first, AbortSignal.any([stream.gone, closing]));
          deadline[Symbol.dispose]();
          if (client === undefined || stream.gone.aborted) return;
          this.#clients.set(stream.id, client);
          this.#publish();
          this.#serve(client, first);
        } catch (thrown) {
          log.error("a discovery stream failed", { error: MeshError.from(thrown, "XDS_STREAM_FAILED") });
          stream.end(status.INTERNAL, "the request could not be served");
        }
      });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#feed[Symbol.dispose]();
    const closing = this.#tasks[Symbol.asyncDispose]();
    for (const stream of [...this.#streams]) stream.end(status.UNAVAILABLE, "server is shutting down");
    this.#publishing?.[Symbol.dispose]();
    await closing;
  }

  #track(raw: DeltaStream): OpenStream {
    const id = String(++this.#opened);
    const gone = new AbortController();
    const finish = (): void => {
      if (gone.signal.aborted) return;
      this.#streams.delete(stream);
      gone.abort(new MeshError("XDS_CLIENT_GONE", "the client closed its stream"));
      this.#clients.get(id)?.session.close();
      if (this.#clients.delete(id)) this.#publish();
    };
    raw.on("error", finish);
    raw.on("cancelled", finish);
    raw.on("close", finish);
    raw.on("end", () => {
      finish();
      raw.end();
    });
    const end = (code: status, details: string): void => {
      if (gone.signal.aborted) return;
      finish();
      raw.emit("error", { code, details });
    };
    const stream: OpenStream = { id, raw, gone: gone.signal, end };
    this.#streams.add(stream);
    return stream;
  }

  /** Authorizes the sender of `first`; undefined when it was refused. */
  async #accept(stream: OpenStream, first: DeltaDiscoveryRequest, signal: AbortSignal): Promise<Client | undefined> {
    const { authorize, clock, log } = this.#options;
    if (first.node === undefined || first.node.id === "" || first.node.id.length > maxNodeIdLength) {
      stream.end(status.INVALID_ARGUMENT, "the first request must carry the node, with an id of ordinary length");
      return undefined;
    }
    const node = nodeOf(first.node);
    const address = stream.raw.getPeer();
    let peer: XdsPeer;
    try {
      peer = await authorize({ metadata: stream.raw.metadata, node }, { signal });
    } catch (thrown) {
      if (signal.aborted) return undefined;
      const denied = errorCode(thrown) === "XDS_PERMISSION_DENIED";
      log.warn("discovery client refused", { node: node.id, address, error: MeshError.from(thrown, "XDS_UNAUTHENTICATED") });
      stream.end(denied ? status.PERMISSION_DENIED : status.UNAUTHENTICATED, denied ? "permission denied" : "authentication failure");
      return undefined;
    }
    const connectedAt = clock.now();
    const session = new ClientSession(
      this.#environment,
      {
        send: (response) => stream.raw.write(response),
        statusChanged: () => this.#publish(),
        end: (reason) => {
          log.warn("discovery client cut off", { node: node.id, address, reason });
          if (reason === "answer-timeout") stream.end(status.ABORTED, "no answer to the last response in time");
          else stream.end(status.RESOURCE_EXHAUSTED, "too many names subscribed");
        },
      },
      { awaitsSiblings: meshProxy.test(node.id) },
    );
    const { namespace, serviceAccount } = peer.identity;
    log.info("discovery client connected", { id: stream.id, node: node.id, address, serviceAccount: `${namespace}/${serviceAccount}` });
    return { session, stream, describe: () => ({ nodeId: node.id, peer, address, connectedAt, types: new Map(session.types) }) };
  }

  #serve({ session, stream }: Client, first: DeltaDiscoveryRequest): void {
    const unknown = new Set<string>();
    const handle = (request: DeltaDiscoveryRequest): void => {
      if (session.handle(request) || unknown.has(request.typeUrl) || unknown.size >= maxUnknownLogged) return;
      unknown.add(request.typeUrl);
      this.#options.log.debug("a type that is not served was asked for", { typeUrl: request.typeUrl.slice(0, maxLoggedName) });
    };
    handle(first);
    stream.raw.on("data", handle);
    stream.raw.resume();
  }

  #distribute({ epoch, names }: ChangeBatch): void {
    for (const { session } of [...this.#clients.values()]) {
      for (const [typeUrl, changed] of names) session.changed(typeUrl, changed, epoch);
      session.flush();
    }
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

function nodeOf({ id, metadata }: Node): XdsNode {
  return { id, metadata: metadata ?? {} };
}
