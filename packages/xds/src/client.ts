/**
 * The delta discovery client: one stream that is kept up for ever, its subscriptions resumed by version (ztunnel contract 3.1-3.4).
 *
 *   connecting ──first message──▶ connected ──end, error──▶ waiting ──backoff──▶ connecting
 *
 * What was received stays in force while the control plane is away.
 */
import { AggregatedDiscoveryServiceClient, type DeltaDiscoveryRequest, type DeltaDiscoveryResponse, type Node } from "@fairway/protocol";
import { type Clock, type Logger, MeshError, TaskGroup, type Watch, Watched } from "@fairway/runtime";
import { type ClientDuplexStream, connectivityState, type ServiceError, status } from "@grpc/grpc-js";
import { connectionError, diagnose, streamError } from "./connection-failure.ts";
import type { ControlPlaneAccess } from "./control-plane-access.ts";
import type { NodeIdentity } from "./node.ts";
import { acknowledgement, type ResourceSink, Subscription, type WantedNames } from "./subscription.ts";

export type XdsConnection =
  | { readonly kind: "connecting" }
  | { readonly kind: "connected"; readonly since: number }
  | { readonly kind: "waiting"; readonly error: MeshError | undefined; readonly retryInMs: number };

/** For whoever counts. */
export interface XdsObserver {
  /** A response of a type that was asked for; `bytes` are those of its resources. */
  received(typeUrl: string, bytes: number): void;
  /** A stream ended: before there was one, as streams do now and then, with an error, or cleanly. */
  ended(how: "unconnected" | "normal" | "error" | "clean"): void;
}

export interface XdsClientOptions {
  readonly access: ControlPlaneAccess;
  readonly node: NodeIdentity;
  /** Subscribed in this order; one with `wanted` to nothing but those names. */
  readonly sinks: readonly (ResourceSink & { readonly wanted?: WantedNames | undefined })[];
  readonly clock: Clock;
  readonly log: Logger;
  readonly maxMessageBytes?: number;
  /** Returns 0..1. */
  readonly random?: () => number;
  readonly observer?: XdsObserver | undefined;
}

/** Ztunnel contract 3.1. */
export const defaultMaxMessageBytes: number = 200 * 1024 * 1024;
const connectTimeoutMs = 5_000;
const retry = { initialMs: 10, maxMs: 15_000, jitter: 0.2 };
/** From the second failed connection in a row it is worth finding out which step fails. */
const failuresBeforeDiagnosis = 2;

/** How a stream ended. `normal`: as streams do now and then, so try again at once; otherwise wait longer each time. */
interface StreamEnd {
  readonly normal: boolean;
  /** At least one response came. */
  readonly served: boolean;
  readonly connected: boolean;
  readonly error: ServiceError | undefined;
}

export class XdsClient implements AsyncDisposable {
  readonly #options: XdsClientOptions;
  readonly #subscriptions: readonly Subscription[];
  readonly #tasks: TaskGroup;
  readonly #connection = new Watched<XdsConnection>({ kind: "connecting" });
  readonly #synced = new Watched(false);
  /** The open stream; undefined while there is none. */
  #open: Pick<ClientDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>, "write"> | undefined;

  constructor(options: XdsClientOptions) {
    this.#options = options;
    this.#subscriptions = options.sinks.map((sink) => new Subscription(sink, sink.wanted));
    this.#tasks = new TaskGroup(options.log);
    this.#tasks.run("discovery", (signal) => this.#run(signal));
  }

  get connection(): Watch<XdsConnection> {
    return this.#connection;
  }

  /** True once every type had its first accepted answer, and from then on. */
  get synced(): Watch<boolean> {
    return this.#synced;
  }

  /** Subscribes to names, one request each. Without an open stream nothing is sent: the next one starts with all that is wanted. */
  subscribe(typeUrl: string, names: readonly string[]): void {
    const subscription = this.#subscriptions.find(({ sink }) => sink.typeUrl === typeUrl);
    if (subscription !== undefined) for (const name of names) this.#open?.write(subscription.nextRequest({ subscribe: [name] }));
  }

  /** Ends subscriptions and forgets the versions that were held under these names. */
  unsubscribe(typeUrl: string, names: readonly string[]): void {
    const subscription = this.#subscriptions.find(({ sink }) => sink.typeUrl === typeUrl);
    subscription?.release(names);
    if (subscription !== undefined && names.length > 0) this.#open?.write(subscription.nextRequest({ unsubscribe: names }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tasks[Symbol.asyncDispose]();
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock, log, random = Math.random, observer } = this.#options;
    let delayMs = retry.initialMs;
    let failures = 0;
    while (!signal.aborted) {
      this.#connection.set({ kind: "connecting" });
      const { error, normal, served, connected } = await this.#attempt(failures, signal);
      if (signal.aborted) return;
      observer?.ended(error === undefined ? "clean" : !connected ? "unconnected" : normal ? "normal" : "error");
      if (served) delayMs = retry.initialMs;
      // A server that ends every stream at once, however politely, is not asked a hundred times a second.
      const calm = normal && served;
      failures = calm ? 0 : failures + 1;
      const retryInMs = delayMs * (1 + retry.jitter * (2 * random() - 1));
      if (!calm) delayMs = Math.min(retry.maxMs, delayMs * 2);
      this.#connection.set({ kind: "waiting", error, retryInMs });
      if (error !== undefined && !calm)
        log.warn("discovery is interrupted; what is known stays in force", { error, failures, retryInMs: Math.round(retryInMs) });
      else log.debug("discovery stream ended", { error: error ?? "cleanly" });
      await clock.sleep(retryInMs, { signal });
    }
  }

  async #attempt(failures: number, signal: AbortSignal): Promise<Omit<StreamEnd, "error"> & { readonly error: MeshError | undefined }> {
    const { access } = this.#options;
    let client: AggregatedDiscoveryServiceClient | undefined;
    try {
      const { credentials } = await access.credentials().catch((cause: unknown) => {
        throw connectionError("tls", access.target, "the roots that verify it cannot be read", cause);
      });
      const metadata = await access.metadata().catch((cause: unknown) => {
        throw connectionError("authz", access.target, "our token cannot be read", cause);
      });
      const { maxMessageBytes = defaultMaxMessageBytes } = this.#options;
      client = new AggregatedDiscoveryServiceClient(access.target, credentials, {
        ...access.channelOptions,
        "grpc.max_receive_message_length": maxMessageBytes,
        "grpc.max_send_message_length": maxMessageBytes,
        // The waiting between attempts is ours; a shared subchannel would add its own.
        "grpc.use_local_subchannel_pool": 1,
      });
      const end = await this.#stream(client, client.deltaAggregatedResources(metadata), signal);
      if (end.error === undefined) return { ...end, error: undefined, normal: true };
      if (end.connected) return { ...end, error: streamError(access.target, end.error) };
      const error =
        failures + 1 < failuresBeforeDiagnosis
          ? connectionError("connect", access.target, "trying again", end.error)
          : await diagnose(access.target, end.error, { signal });
      return { error, normal: false, served: false, connected: false };
    } catch (thrown) {
      return { error: MeshError.from(thrown, "XDS_STREAM_FAILED"), normal: false, served: false, connected: false };
    } finally {
      client?.close();
    }
  }

  /** Runs one stream to its end. Never rejects. */
  #stream(
    client: AggregatedDiscoveryServiceClient,
    stream: ClientDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>,
    signal: AbortSignal,
  ): Promise<StreamEnd> {
    const { clock, node, log, access } = this.#options;
    return new Promise((resolve) => {
      let served = false;
      let connected = false;
      const reached = (): boolean => connected || served || client.getChannel().getConnectivityState(false) === connectivityState.READY;
      const connecting = clock.schedule(connectTimeoutMs, () => {
        if (!reached()) stream.cancel();
      });
      const onAbort = (): void => stream.cancel();
      const end = (error: ServiceError | undefined): void => {
        if (this.#open === stream) this.#open = undefined;
        connecting[Symbol.dispose]();
        signal.removeEventListener("abort", onAbort);
        resolve({
          error,
          served,
          connected: reached() || (error !== undefined && cameFromServer(error)),
          normal: error !== undefined && isNormalEnd(error, served),
        });
      };
      signal.addEventListener("abort", onAbort, { once: true });
      if (signal.aborted) stream.cancel();
      stream.on("metadata", () => {
        connected = true;
      });
      stream.on("data", (response: DeltaDiscoveryResponse) => {
        if (signal.aborted) return;
        if (!served) {
          served = true;
          log.info("discovery is connected", { address: access.target });
          this.#connection.set({ kind: "connected", since: clock.now() });
        }
        stream.write(this.#receive(response));
      });
      stream.on("error", (error: ServiceError) => end(error));
      stream.on("end", () => end(undefined));
      for (const subscription of this.#subscriptions) stream.write(subscription.firstRequest(toWire(node)));
      this.#open = stream;
    });
  }

  #receive(response: DeltaDiscoveryResponse): DeltaDiscoveryRequest {
    const { log, observer } = this.#options;
    const subscription = this.#subscriptions.find(({ sink }) => sink.typeUrl === response.typeUrl);
    if (subscription === undefined) {
      log.warn("a response of a type that was not asked for", { typeUrl: response.typeUrl.slice(0, maxLogged) });
      return acknowledgement(response);
    }
    observer?.received(
      response.typeUrl,
      response.resources.reduce((sum, { resource }) => sum + (resource?.value.length ?? 0), 0),
    );
    const { reply, rejected } = subscription.receive(response);
    if (rejected.size > 0)
      log.warn("resources rejected", { typeUrl: response.typeUrl, count: rejected.size, reasons: (reply.errorDetail?.message ?? "").slice(0, maxLogged) });
    log.debug("resources received", { typeUrl: response.typeUrl, resources: response.resources.length, removed: response.removedResources.length });
    if (this.#subscriptions.every(({ synced }) => synced)) this.#synced.set(true);
    return reply;
  }
}

const maxLogged = 1_000;

function toWire({ id, metadata }: NodeIdentity): Node {
  return { id, cluster: "", metadata, locality: undefined, userAgentName: "fairway", userAgentVersionType: undefined, clientFeatures: [] };
}

/** Statuses that servers, connection ages and restarts end streams with (ztunnel contract 3.4). */
function isNormalEnd({ code }: ServiceError, served: boolean): boolean {
  return code === status.UNKNOWN || code === status.CANCELLED || code === status.DEADLINE_EXCEEDED || (code === status.UNAVAILABLE && served);
}

/** Statuses that the library itself gives when it has no connection; any other was sent by a server. */
function cameFromServer({ code }: ServiceError): boolean {
  return code !== status.UNAVAILABLE && code !== status.CANCELLED && code !== status.DEADLINE_EXCEEDED;
}
