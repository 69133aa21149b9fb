/**
 * From a cluster to an answer: a place within the cluster's limits, an endpoint, a connection to it through its tunnel, the request. An
 * endpoint that cannot be reached is passed over for another before the first byte of the request went out (architecture 7.6).
 */
import type { Duplex } from "node:stream";
import { formatForwarded } from "@fairway/hbone";
import {
  type Cluster,
  defaultConnectTimeoutMs,
  type Endpoint,
  formatSocketAddress,
  passthroughCluster,
  type SocketAddress,
  unlimited,
  type WaypointConfig,
} from "@fairway/model";
import { type Clock, errorCode, MeshError, withDeadline } from "@fairway/runtime";
import type { Body } from "./body.ts";
import { ClusterState, type ClusterStateOptions, type Host } from "./cluster-state.ts";
import { dial } from "./dial.ts";
import type { OpenConnections } from "./endpoint-connections.ts";
import type { Downstream } from "./exchange.ts";
import { waypointError } from "./failure.ts";
import type { Answer, HttpLimits, HttpVersion, OutgoingRequest } from "./http-connection.ts";
import { isIdempotent } from "./message-rules.ts";
import type { Tunnels } from "./tunnels.ts";
import { watchBody } from "./watched-body.ts";

/** Endpoints tried for one attempt before its first byte. */
const maxConnectAttempts = 3;

export interface UpstreamParts extends ClusterStateOptions {
  readonly config: () => WaypointConfig;
  readonly tunnels: Tunnels;
  readonly openConnections: OpenConnections;
  readonly clock: Clock;
  readonly limits: HttpLimits;
  /** What this waypoint says of itself in its tunnels. */
  readonly baggage: () => string | undefined;
}

/** What is to be sent, and what the sender learns on the way. */
export interface UpstreamRequest {
  readonly cluster: string;
  readonly downstream: Downstream;
  readonly version: HttpVersion;
  readonly request: Pick<OutgoingRequest, "head" | "upgrade" | "onInform">;
  readonly body: Body;
  /** Endpoints not to be asked again; the chosen one is added. */
  readonly tried: Set<string>;
  readonly signal: AbortSignal;
  /** Breaks the answer's body off; who reads it can do so himself. */
  readonly bodySignal?: AbortSignal;
  readonly onChosen?: (endpoint: Endpoint) => void;
}

export class Upstreams {
  readonly #parts: UpstreamParts;
  readonly #clusters = new Map<string, ClusterState>();

  constructor(parts: UpstreamParts) {
    this.#parts = parts;
  }

  /** For the config dump. */
  states(): Iterable<ClusterState> {
    return this.#clusters.values();
  }

  /**
   * One attempt; resolves with the head of the answer. Throws WAYPOINT_NO_CLUSTER, WAYPOINT_OVERFLOW, WAYPOINT_NO_HEALTHY_UPSTREAM,
   * WAYPOINT_UPSTREAM_*, or the signal's reason.
   */
  async send(wanted: UpstreamRequest): Promise<Answer> {
    const state = this.#stateFor(wanted);
    const release = state.breakers.take("requests");
    try {
      for (let tries = 1; ; tries++) {
        const host = this.#choose(state, wanted);
        try {
          return await this.#sendTo(state, host, wanted, release);
        } catch (thrown) {
          // An endpoint may close a connection that it keeps: no failure of its, and the same endpoint may be asked again.
          if (hadClosed(thrown)) wanted.tried.delete(host.key);
          else this.#observeFailure(state, host, thrown, wanted.signal);
          if (!mayTryAnother(thrown, tries, wanted)) throw thrown;
        }
      }
    } catch (thrown) {
      release();
      throw thrown;
    }
  }

  /** Bytes to an endpoint of `cluster`, for what is not HTTP. The same failures as `send`. */
  async open(wanted: Pick<UpstreamRequest, "cluster" | "downstream" | "tried" | "signal" | "onChosen">): Promise<{ transport: Duplex; release: () => void }> {
    const state = this.#stateFor(wanted);
    for (let tries = 1; ; tries++) {
      const host = this.#choose(state, wanted);
      try {
        const transport = await this.#transport(state, host, wanted.signal, wanted.downstream.source);
        host.active++;
        return { transport, release: () => void host.active-- };
      } catch (thrown) {
        this.#observeFailure(state, host, thrown, wanted.signal);
        if (!mayTryAnother(thrown, tries, wanted)) throw thrown;
      }
    }
  }

  /** A place among the retries of `cluster`. */
  tryTakeRetry(cluster: string): (() => void) | undefined {
    const state = this.#clusters.get(cluster);
    return state === undefined ? () => undefined : state.breakers.tryTake("retries");
  }

  /** Lets go of clusters that are not configured any more. */
  forgetTheGone(): void {
    const { clusters } = this.#parts.config();
    for (const [name, state] of this.#clusters) {
      if (isPassthrough(name) ? !state.isIdle : clusters.has(name)) continue;
      this.#clusters.delete(name);
      state.leave();
    }
  }

  drain(): void {
    for (const state of this.#clusters.values()) state.leave();
  }

  destroy(reason: Error): void {
    for (const state of this.#clusters.values()) state.destroy(reason);
    this.#clusters.clear();
  }

  #stateFor({ cluster: name, downstream }: Pick<UpstreamRequest, "cluster" | "downstream">): ClusterState {
    const { clusters, endpoints } = this.#parts.config();
    if (name === passthroughCluster) return this.#passthrough(downstream, clusters.get(name));
    const cluster = clusters.get(name);
    if (cluster === undefined) throw waypointError("WAYPOINT_NO_CLUSTER", `cluster ${name} is not known`);
    const state = this.#clusters.get(name) ?? new ClusterState(cluster, this.#parts);
    this.#clusters.set(name, state);
    state.update(cluster, endpoints.get(name));
    return state;
  }

  /** The address that the client asked for, as a cluster of its own: one for each workload and port. */
  #passthrough(downstream: Downstream, configured: Cluster | undefined): ClusterState {
    const { target, destination } = downstream;
    const key = `${passthroughCluster}|${target.name}|${formatSocketAddress(destination)}`;
    const known = this.#clusters.get(key);
    if (known !== undefined) return known;
    this.#makeRoom();
    const uid = target.kind === "workload" && target.name.startsWith(workloadPrefix) ? target.name.slice(workloadPrefix.length) : "";
    const workload = this.#parts.tunnels.workloadOf({ address: destination, workload: uid });
    const tunnel = workload?.tunnelProtocol === "none" ? "none" : "hbone";
    const endpoint: Endpoint = { address: destination, tunnel, workload: uid, health: "healthy", weight: 1 };
    const service = { namespace: target.namespace, hostname: "", port: destination.port };
    const cluster = configured ?? { ...passthroughDefaults, service };
    const state = new ClusterState(cluster, this.#parts);
    state.update(cluster, { cluster: passthroughCluster, localities: [{ locality: nowhere, priority: 0, weight: 1, endpoints: [endpoint] }] });
    this.#clusters.set(key, state);
    return state;
  }

  /** A client may ask for every port of a workload: those that nobody uses now make room. */
  #makeRoom(): void {
    if (this.#clusters.size < maxClusters) return;
    for (const [key, state] of this.#clusters) {
      if (!isPassthrough(key) || !state.isIdle) continue;
      this.#clusters.delete(key);
      state.leave();
    }
  }

  #choose(state: ClusterState, { tried, onChosen }: Pick<UpstreamRequest, "tried" | "onChosen">): Host {
    const host = state.pick(this.#parts.clock.monotonic(), tried);
    if (host === undefined) throw waypointError("WAYPOINT_NO_HEALTHY_UPSTREAM", `no endpoint of ${state.cluster.name} is healthy`);
    tried.add(host.key);
    onChosen?.(host.endpoint);
    return host;
  }

  /** The request counts until the last byte of its answer; a connection is waited for among the pending ones. */
  async #sendTo(state: ClusterState, host: Host, wanted: UpstreamRequest, release: () => void): Promise<Answer> {
    const onConnected = state.breakers.take("pending");
    host.active++;
    try {
      const pool = this.#pool(state, host, versionFor(state.cluster, wanted));
      const answer = await pool.send({ ...wanted.request, body: wanted.body }, { signal: wanted.signal, onConnected });
      const done = (): void => {
        host.active--;
        release();
      };
      return this.#following(state, host, answer, wanted.bodySignal, done);
    } catch (thrown) {
      host.active--;
      throw thrown;
    } finally {
      onConnected();
    }
  }

  #pool(state: ClusterState, host: Host, version: HttpVersion): ReturnType<OpenConnections> {
    const known = host.pools.get(version);
    if (known !== undefined) return known;
    const { openConnections, limits } = this.#parts;
    let open = 0;
    const dial = async (signal: AbortSignal): Promise<Duplex> => {
      // The first one has its place, whatever the limit: those that other endpoints keep for later would shut this one out.
      const isFirst = open++ === 0;
      try {
        const transport = await this.#transport(state, host, signal, undefined, isFirst);
        transport.once("close", () => open--);
        return transport;
      } catch (thrown) {
        open--;
        throw thrown;
      }
    };
    const pool = openConnections({ version, limits, dial });
    host.pools.set(version, pool);
    return pool;
  }

  async #transport(state: ClusterState, host: Host, signal: AbortSignal, client: SocketAddress | undefined, anyway = false): Promise<Duplex> {
    const release = anyway ? state.breakers.count("connections") : state.breakers.take("connections");
    try {
      const transport = await this.#dial(state.cluster, host.endpoint, signal, client);
      transport.once("close", release);
      return transport;
    } catch (thrown) {
      release();
      throw thrown;
    }
  }

  async #dial({ service, connectTimeoutMs }: Cluster, endpoint: Endpoint, signal: AbortSignal, client: SocketAddress | undefined): Promise<Duplex> {
    const { clock, tunnels, baggage } = this.#parts;
    if (endpoint.tunnel === "none") return dial(endpoint.address, { clock, timeoutMs: connectTimeoutMs, signal });
    const reason = waypointError("WAYPOINT_UPSTREAM_CONNECT", `no connection through the tunnel within ${connectTimeoutMs} ms`);
    const request = { baggage: baggage(), ...(client === undefined ? {} : { forwarded: formatForwarded(client) }) };
    const opened = await withDeadline({ clock, signal, afterMs: connectTimeoutMs, reason }, (waiting) =>
      tunnels.open(endpoint, service.hostname === "" ? undefined : service, request, { timeoutMs: connectTimeoutMs, signal: waiting }),
    );
    return opened.stream.duplex();
  }

  /** Until the last byte of the answer the request counts, and its end is what the endpoint's health is judged by. */
  #following(state: ClusterState, host: Host, answer: Answer, signal: AbortSignal | undefined, release: () => void): Answer {
    const { clock } = this.#parts;
    if (answer.body.length === 0) {
      release();
      state.observe(host, { kind: "answer", status: answer.status }, clock.monotonic());
      return answer;
    }
    const body = watchBody(answer.body, {
      ...(signal === undefined ? {} : { signal }),
      onOver: (error, _, isCancelled) => {
        release();
        const broken = error !== undefined && !isCancelled;
        state.observe(host, broken ? { kind: "failure" } : { kind: "answer", status: answer.status }, clock.monotonic());
      },
    });
    return { ...answer, body };
  }

  #observeFailure(state: ClusterState, host: Host, thrown: unknown, signal: AbortSignal): void {
    const ours = errorCode(thrown) === "WAYPOINT_OVERFLOW" || errorCode(thrown) === "WAYPOINT_IDENTITY" || hasLeft(thrown);
    const gaveUp = signal.aborted && errorCode(signal.reason) === "WAYPOINT_CLIENT_GONE";
    if (!ours && !gaveUp) state.observe(host, { kind: "failure" }, this.#parts.clock.monotonic());
  }
}

function versionFor({ protocol }: Cluster, { version, request }: Pick<UpstreamRequest, "version" | "request">): HttpVersion {
  if (protocol !== "same") return protocol;
  // Nearly every application that speaks WebSocket does so by Upgrade; what RFC 8441 adds is for the client's side.
  return request.upgrade === undefined ? version : "http1";
}

/** Nothing of the request went out: the connection was not made, or it was gone before the first byte. */
function mayTryAnother(
  thrown: unknown,
  tries: number,
  { signal, body, request }: { readonly signal: AbortSignal; readonly body?: Body; readonly request?: UpstreamRequest["request"] },
): boolean {
  if (tries >= maxConnectAttempts || signal.aborted) return false;
  if (errorCode(thrown) === "WAYPOINT_UPSTREAM_CONNECT" || hasLeft(thrown)) return true;
  const isUnsent = errorCode(thrown) === "WAYPOINT_UPSTREAM_RESET" && thrown instanceof MeshError && thrown.details["sent"] === false;
  const mayBeRepeated = hadClosed(thrown) && request !== undefined && request.upgrade === undefined && isIdempotent(request.head.method);
  // A body may have begun to flow; whoever keeps it can send it again.
  return (isUnsent || mayBeRepeated) && body?.length === 0;
}

/** A kept connection ended without a byte of an answer. */
function hadClosed(thrown: unknown): boolean {
  return errorCode(thrown) === "WAYPOINT_UPSTREAM_RESET" && thrown instanceof MeshError && thrown.details["idle"] === true;
}

/** The endpoint left the cluster while a connection to it was waited for. */
function hasLeft(thrown: unknown): boolean {
  return errorCode(thrown) === "WAYPOINT_SUPERSEDED";
}

function isPassthrough(key: string): boolean {
  return key.startsWith(`${passthroughCluster}|`);
}

const workloadPrefix = "workload/";
/** Clusters held before passthrough ones that are idle are let go. */
const maxClusters = 5_000;
const nowhere = { region: "", zone: "", subzone: "" };
const passthroughDefaults: Omit<Cluster, "service"> = {
  name: passthroughCluster,
  protocol: "same",
  connectTimeoutMs: defaultConnectTimeoutMs,
  loadBalancing: "random",
  limits: unlimited,
  ejection: undefined,
};
