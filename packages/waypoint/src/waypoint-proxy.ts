/**
 * The traffic half of a waypoint put together: what one thread needs to serve tunnels. It knows no control plane; whoever starts it gives
 * it the configuration and the mesh as they change.
 */
import { randomUUID } from "node:crypto";
import { formatBaggage, type HboneMetrics, tunnelEngine } from "@fairway/hbone";
import { type IpAddress, tryParseIp, type WaypointConfig } from "@fairway/model";
import type { CertificateSource, MeshTls } from "@fairway/pki";
import { type Clock, type Logger, TaskGroup, type Watch } from "@fairway/runtime";
import type { MeshView } from "@fairway/xds";
import type { ClusterState } from "./cluster-state.ts";
import type { ProxyConfig } from "./config.ts";
import type { OpenConnections } from "./endpoint-connections.ts";
import { waypointError } from "./failure.ts";
import type { HttpVersion, ServeHttp } from "./http-connection.ts";
import { HttpService } from "./http-service.ts";
import { type Detection, Listener } from "./listener.ts";
import { requestStages } from "./stages.ts";
import { TcpService } from "./tcp.ts";
import type { ProxyTelemetry } from "./telemetry.ts";
import type { TokenVerifier } from "./token-verifier.ts";
import type { Tracer } from "./tracer.ts";
import { Tunnels } from "./tunnels.ts";
import { Upstreams } from "./upstreams.ts";

/** HTTP on both sides. */
export interface Codecs {
  readonly serve: Readonly<Record<HttpVersion, ServeHttp>>;
  readonly openConnections: OpenConnections;
  readonly detect: (transport: Detection["transport"], expectHttp: boolean, options: { signal: AbortSignal }) => Promise<Detection>;
}

export interface WaypointProxyParts {
  readonly config: ProxyConfig;
  readonly waypoint: { readonly config: Watch<WaypointConfig>; readonly synced: Watch<boolean> };
  readonly mesh: Pick<MeshView, "snapshot" | "changes">;
  readonly certificates: Pick<CertificateSource, "fetch">;
  readonly tls: MeshTls;
  readonly codecs: Codecs;
  readonly telemetry: ProxyTelemetry;
  readonly tracer: Tracer;
  readonly tokens: TokenVerifier;
  readonly tunnelMetrics: HboneMetrics | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  /** Returns 0..1. */
  readonly random: () => number;
}

export class WaypointProxy implements AsyncDisposable {
  readonly #parts: WaypointProxyParts;
  readonly #tasks: TaskGroup;
  readonly #tunnels: Tunnels;
  readonly #upstreams: Upstreams;
  readonly #http: HttpService;
  readonly #tcp: TcpService;
  readonly #listener: Listener;
  readonly #subscription: Disposable;

  constructor(parts: WaypointProxyParts) {
    const { config, waypoint, telemetry, clock, log, random, codecs } = parts;
    this.#parts = parts;
    this.#tasks = new TaskGroup(log);
    this.#tunnels = new Tunnels({
      ...parts,
      engine: tunnelEngine(config.engine),
      identity: config.identity,
      network: config.network,
      idleMs: config.tunnelIdleMs,
      maxStreamsPerTunnel: config.maxStreamsPerTunnel,
      metrics: parts.tunnelMetrics,
      port: config.workloadPort,
    });
    const baggage = ownBaggage(config);
    this.#upstreams = new Upstreams({
      config: () => waypoint.config.current,
      tunnels: this.#tunnels,
      openConnections: codecs.openConnections,
      clock,
      limits: config.httpLimits,
      baggage: () => baggage,
      random,
      onOverflow: (cluster, what) => telemetry.overflowed(cluster, what),
      onEjected: (cluster, host) => {
        telemetry.ejected(cluster);
        log.warn("endpoint ejected", { cluster, endpoint: host.key, ejections: host.health.ejections });
      },
    });
    const stages = requestStages({
      clock,
      random,
      newRequestId: randomUUID,
      pathNormalization: config.pathNormalization,
      trustedHops: config.trustedHops,
      replayBytes: config.replayBytes,
      config: () => waypoint.config.current,
      telemetry,
      tracer: parts.tracer,
      tokens: parts.tokens,
      upstreams: this.#upstreams,
      onObserved: (exchange, observed) => telemetry.observed(exchange, observed),
    });
    this.#http = new HttpService({
      serve: codecs.serve,
      limits: config.httpLimits,
      halfClosedMs: config.halfClosedMs,
      stages,
      clock,
      log,
      onRefused: (downstream, version, refusal) => telemetry.malformed(downstream, version, refusal),
    });
    this.#tcp = new TcpService({ config: waypoint.config, upstreams: this.#upstreams, telemetry, clock, random, idleMs: config.tcpIdleMs });
    this.#listener = new Listener({
      ...parts,
      engine: tunnelEngine(config.engine),
      identity: config.identity,
      config: waypoint.config,
      synced: waypoint.synced,
      http: this.#http,
      tcp: this.#tcp,
      detect: codecs.detect,
      tasks: this.#tasks,
      trustedGateways: new Set(config.trustedGateways),
      ownAddresses: new Set<IpAddress>(config.ownAddresses.flatMap((text) => tryParseIp(text) ?? [])),
      baggage: () => baggage,
      maxPendingHandshakes: config.maxPendingHandshakes,
      maxTunnels: config.maxTunnels,
      onOverload: (bound) => telemetry.overloaded(bound),
    });
    this.#subscription = waypoint.config.subscribe(() => this.#upstreams.forgetTheGone());
  }

  /** Throws WAYPOINT_LISTEN_FAILED. */
  listen(): Promise<number> {
    return this.#listener.listen(this.#parts.config.listen);
  }

  /** Requests and connections under way. */
  get active(): number {
    return this.#http.active + this.#tcp.active;
  }

  get openTunnels(): number {
    return this.#listener.tunnels;
  }

  clusters(): Iterable<ClusterState> {
    return this.#upstreams.states();
  }

  /** Nothing new; resolves when everything is over, or when `signal` aborts. */
  async drain({ signal }: { signal: AbortSignal }): Promise<void> {
    this.#listener.drain();
    this.#http.drain();
    while (this.#http.connections + this.#tcp.active > 0 && !signal.aborted) {
      await this.#parts.clock.sleep(drainPollMs, { signal }).catch(() => undefined);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const reason = waypointError("WAYPOINT_STOPPED", "this waypoint is shutting down");
    this.#subscription[Symbol.dispose]();
    this.#http.destroy(reason);
    this.#tcp.destroy(reason);
    this.#upstreams.destroy(reason);
    await this.#listener[Symbol.asyncDispose]();
    await this.#tunnels[Symbol.asyncDispose]();
    await this.#tasks[Symbol.asyncDispose]();
  }
}

const drainPollMs = 50;

function ownBaggage({ clusterId, namespace, gateway }: ProxyConfig): string | undefined {
  const name = gateway.slice(gateway.indexOf("/") + 1);
  return formatBaggage({ clusterName: clusterId, namespace, workloadType: "deployment", workloadName: name, serviceName: name });
}
