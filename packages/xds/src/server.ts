/**
 * The delta discovery server: who may connect, what each client is told, and what each client answered (controller contract 6).
 * Delta only. The sources' order is the push order; see client-session.ts for why it matters.
 */
import type { AggregatedDiscoveryServiceServer, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node } from "@fairway/protocol";
import { type Clock, errorCode, type Logger, MeshError, TaskGroup, type Watch, Watched } from "@fairway/runtime";
import type { Metadata, ServerDuplexStream } from "@grpc/grpc-js";
import { status } from "@grpc/grpc-js";
import { ChangeFeed } from "./change-feed.ts";
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
  readonly end: (code: status, details: string) => void;
}

export function createXdsServer(options: XdsServerOptions): XdsServer {
  const { clock, log, sources, ready, identifier = "fairway" } = options;
  const limits = { ...defaultXdsServerLimits, ...options.limits };
  const clients = new Map<string, Client>();
  const watched = new Watched<ReadonlyMap<string, XdsClientStatus>>(new Map());
  const tasks = new TaskGroup(log);
  let streams = 0;
  let opened = 0;
  let publishing: Disposable | undefined;

  const publish = (): void => {
    publishing ??= clock.schedule(statusIntervalMs, () => {
      publishing = undefined;
      watched.set(new Map([...clients].map(([id, { describe }]) => [id, describe()])));
    });
  };

  const feed = new ChangeFeed(sources, {
    clock,
    debounceMs: options.debounceMs ?? defaultDebounceMs,
    onBatch: ({ epoch, names }) => {
      for (const { session } of clients.values()) {
        for (const [typeUrl, changed] of names) session.changed(typeUrl, changed, epoch);
        session.flush();
      }
    },
  });

  const environment: SessionEnvironment = {
    clock,
    sources,
    identifier,
    limits,
    stale: (typeUrl) => feed.stale(typeUrl),
    currentEpoch: () => feed.epoch,
  };

  const deltaAggregatedResources = (stream: DeltaStream): void => {
    const id = String(++opened);
    const gone = new AbortController();
    streams++;
    let ended = false;
    let deadline: Disposable | undefined;
    const finish = (): void => {
      if (ended) return;
      ended = true;
      streams--;
      deadline?.[Symbol.dispose]();
      gone.abort(new MeshError("XDS_CLIENT_GONE", "the client closed its stream"));
      clients.get(id)?.session.close();
      if (clients.delete(id)) publish();
    };
    const end = (code: status, details: string): void => {
      if (ended) return;
      finish();
      stream.emit("error", { code, details });
    };
    stream.on("error", finish);
    stream.on("cancelled", finish);
    stream.on("close", finish);
    stream.on("end", () => {
      finish();
      stream.end();
    });
    if (tasks.signal.aborted || !ready.current) {
      end(status.UNAVAILABLE, "server is not ready");
      return;
    }
    if (streams > limits.maxClients) {
      end(status.RESOURCE_EXHAUSTED, "too many clients");
      return;
    }
    deadline = clock.schedule(limits.authorizationTimeoutMs, () => end(status.DEADLINE_EXCEEDED, "no request in time"));
    stream.once("data", (first: DeltaDiscoveryRequest) => {
      stream.pause();
      tasks.run("accepting a discovery client", async (closing) => {
        try {
          const client = await accept(id, stream, first, { signal: AbortSignal.any([gone.signal, closing]), end });
          deadline?.[Symbol.dispose]();
          if (client === undefined || ended) return;
          clients.set(id, client);
          publish();
          serve(client.session, stream, first);
        } catch (thrown) {
          log.error("a discovery stream failed", { error: MeshError.from(thrown, "XDS_STREAM_FAILED") });
          end(status.INTERNAL, "the request could not be served");
        }
      });
    });
  };

  /** Authorizes the sender of `first`; undefined when it was refused. */
  const accept = async (
    id: string,
    stream: DeltaStream,
    first: DeltaDiscoveryRequest,
    { signal, end }: { signal: AbortSignal; end: Client["end"] },
  ): Promise<Client | undefined> => {
    if (first.node === undefined || first.node.id === "" || first.node.id.length > maxNodeIdLength) {
      end(status.INVALID_ARGUMENT, "the first request must carry the node, with an id of ordinary length");
      return undefined;
    }
    const node = nodeOf(first.node);
    const address = stream.getPeer();
    let peer: XdsPeer;
    try {
      peer = await options.authorize({ metadata: stream.metadata, node }, { signal });
    } catch (thrown) {
      if (signal.aborted) return undefined;
      const denied = errorCode(thrown) === "XDS_PERMISSION_DENIED";
      log.warn("discovery client refused", { node: node.id, address, error: MeshError.from(thrown, "XDS_UNAUTHENTICATED") });
      end(denied ? status.PERMISSION_DENIED : status.UNAUTHENTICATED, denied ? "permission denied" : "authentication failure");
      return undefined;
    }
    const connectedAt = clock.now();
    const session = new ClientSession(
      environment,
      {
        send: (response) => stream.write(response),
        statusChanged: publish,
        end: (reason) => {
          log.warn("discovery client cut off", { node: node.id, address, reason });
          if (reason === "answer-timeout") end(status.ABORTED, "no answer to the last response in time");
          else end(status.RESOURCE_EXHAUSTED, "too many names subscribed");
        },
      },
      { awaitsSiblings: meshProxy.test(node.id) },
    );
    log.info("discovery client connected", { id, node: node.id, address, serviceAccount: `${peer.identity.namespace}/${peer.identity.serviceAccount}` });
    return { session, end, describe: () => ({ nodeId: node.id, peer, address, connectedAt, types: new Map(session.types) }) };
  };

  const serve = (session: ClientSession, stream: DeltaStream, first: DeltaDiscoveryRequest): void => {
    const unknown = new Set<string>();
    const handle = (request: DeltaDiscoveryRequest): void => {
      if (session.handle(request) || unknown.has(request.typeUrl) || unknown.size >= maxUnknownLogged) return;
      unknown.add(request.typeUrl);
      log.debug("a type that is not served was asked for", { typeUrl: request.typeUrl.slice(0, maxLoggedName) });
    };
    handle(first);
    stream.on("data", handle);
    stream.resume();
  };

  return {
    service: {
      deltaAggregatedResources,
      streamAggregatedResources: (stream) => void stream.emit("error", { code: status.UNIMPLEMENTED, details: "only the delta protocol is served" }),
    },
    clients: watched,
    async [Symbol.asyncDispose]() {
      feed[Symbol.dispose]();
      const closing = tasks[Symbol.asyncDispose]();
      for (const { end } of [...clients.values()]) end(status.UNAVAILABLE, "server is shutting down");
      publishing?.[Symbol.dispose]();
      await closing;
    },
  };
}

/** Proxies that subscribe to every type when they connect. */
const meshProxy = /^(?:ztunnel|waypoint)~/;
const maxNodeIdLength = 1_024;
const maxUnknownLogged = 8;
const maxLoggedName = 200;

function nodeOf({ id, metadata }: Node): XdsNode {
  return { id, metadata: metadata ?? {} };
}
