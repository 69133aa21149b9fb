/** All reports of one thread: to its access log, its metrics, and its log. */
import { isGrpc, type Snapshot, type WaypointConfig } from "@fairway/model";
import { type Clock, Counter, errorCode, type Logger, type MetricRegistry, messageOf } from "@fairway/runtime";
import type { AccessLog } from "./access-log.ts";
import type { ProxyConfig } from "./config.ts";
import type { Downstream, Exchange } from "./exchange.ts";
import { clientGoneDetail } from "./rescue.ts";
import type { ConnectionReport, ProxyTelemetry, RequestOutcome } from "./telemetry.ts";
import { type TrafficFacts, TrafficLabels } from "./traffic-labels.ts";
import { type ConnectionSeries, TrafficMetrics } from "./traffic-metrics.ts";
import { ScrapedCounter } from "./traffic-series.ts";

export interface ProxyTelemetryOptions {
  readonly registry: MetricRegistry;
  readonly accessLog: AccessLog;
  readonly clock: Clock;
  readonly log: Logger;
  readonly config: Pick<ProxyConfig, "network">;
  readonly snapshot: () => Snapshot;
  readonly waypoint: () => WaypointConfig;
}

/** Flags of failures that end a connection of bytes. */
const connectionFlags: Readonly<Record<string, string>> = {
  WAYPOINT_POLICY_DENIED: "UAEX",
  WAYPOINT_NO_HEALTHY_UPSTREAM: "UH",
  WAYPOINT_OVERFLOW: "UO",
  WAYPOINT_UPSTREAM_CONNECT: "UF",
  WAYPOINT_NO_CLUSTER: "NC",
  WAYPOINT_NO_BACKEND: "NC",
};
const noFlags = "-";

export function createProxyTelemetry(options: ProxyTelemetryOptions): ProxyTelemetry {
  const { registry, accessLog, clock, log, snapshot, waypoint, config } = options;
  const metrics = new TrafficMetrics(registry, new TrafficLabels(snapshot, config.network));
  const counters = createCounters(registry, accessLog);
  const factsOf = (downstream: Downstream, cluster: string | undefined, workload: string | undefined): TrafficFacts => ({
    downstream,
    workload,
    service: cluster === undefined ? undefined : waypoint().clusters.get(cluster)?.service,
  });
  return {
    over(exchange, outcome) {
      const durationMs = clock.monotonic() - exchange.startedAt;
      const flags = flagsOf(exchange, outcome);
      const { record, downstream, request } = exchange;
      const status = record.detail === clientGoneDetail ? 0 : (outcome.answer?.status ?? 0);
      metrics.observeRequest({
        ...factsOf(downstream, record.cluster, record.workload),
        protocol: isGrpc(request.head) ? "grpc" : "http",
        status,
        grpcStatus: isGrpc(request.head) ? (outcome.grpcStatus ?? "") : "",
        flags,
        durationMs,
        requestBytes: outcome.delivery.bytesReceived,
        responseBytes: outcome.delivery.bytesSent,
      });
      accessLog.request(exchange, outcome, { startTime: clock.now() - durationMs, durationMs, flags, status });
    },
    retried: () => counters.retries.inc(),
    mirrorDropped: () => counters.mirrorsDropped.inc(),
    opened: (downstream) => new Report({ metrics, accessLog, clock, factsOf }, downstream),
    refused({ source, authority, error }) {
      const code = errorCode(error);
      counters.refused.inc({ reason: code ?? "unknown" });
      const status = code === "WAYPOINT_NOT_BOUND" ? 400 : code === "WAYPOINT_NOT_PROGRAMMED" ? 503 : 0;
      accessLog.refused({
        startTime: clock.now(),
        source,
        authority,
        status,
        flags: status === 400 ? "NR" : noFlags,
        detail: code ?? "unknown",
        failure: messageOf(error),
      });
    },
    malformed(downstream, version, { status, detail }) {
      metrics.observeRequest({
        ...factsOf(downstream, undefined, undefined),
        protocol: "http",
        status,
        grpcStatus: "",
        flags: "DPE",
        durationMs: 0,
        requestBytes: 0,
        responseBytes: 0,
      });
      const { source, destination } = downstream;
      log.debug("malformed request", { version, detail });
      accessLog.refused({ startTime: clock.now(), source, authority: `${destination.ip}:${destination.port}`, status, flags: "DPE", detail });
    },
    observed(exchange, observed) {
      for (const { key, action } of observed) {
        counters.observed.inc({ action });
        log.info("policy would have decided", { policy: key, action, identity: exchange.downstream.identity, path: exchange.head.path });
      }
    },
    overflowed: (_, what) => counters.overflows.inc({ bound: what }),
    ejected: () => counters.ejections.inc(),
    overloaded: (bound) => counters.overloads.inc({ bound }),
  };
}

function flagsOf({ record, signal }: Exchange, { delivery }: RequestOutcome): string {
  if (delivery.error !== undefined && errorCode(delivery.error) === "WAYPOINT_CLIENT_GONE" && !record.flags.has("UT")) record.flags.add("DC");
  else if (delivery.error !== undefined && record.flags.size === 0 && !signal.aborted) record.flags.add("UC");
  return record.flags.size === 0 ? noFlags : [...record.flags].join(",");
}

interface ReportParts {
  readonly metrics: TrafficMetrics;
  readonly accessLog: AccessLog;
  readonly clock: Clock;
  readonly factsOf: (downstream: Downstream, cluster: string | undefined, workload: string | undefined) => TrafficFacts;
}

/** Counted under the labels of whoever was chosen, from the first byte on: before, nobody is known. */
class Report implements ConnectionReport {
  readonly #parts: ReportParts;
  readonly #downstream: Downstream;
  readonly #startTime: number;
  readonly #startedAt: number;
  #series: ConnectionSeries | undefined;
  #received = 0;
  #sent = 0;
  #closed = false;
  cluster: string | undefined;
  upstream: ConnectionReport["upstream"];
  workload: string | undefined;

  constructor(parts: ReportParts, downstream: Downstream) {
    this.#parts = parts;
    this.#downstream = downstream;
    this.#startTime = parts.clock.now();
    this.#startedAt = parts.clock.monotonic();
  }

  get moved(): number {
    return this.#received + this.#sent;
  }

  bytes(clientToServer: number, serverToClient: number): void {
    this.#received += clientToServer;
    this.#sent += serverToClient;
    const series = this.#open();
    series.received += clientToServer;
    series.sent += serverToClient;
  }

  close(error: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    const flags = error === undefined ? noFlags : (connectionFlags[errorCode(error) ?? ""] ?? noFlags);
    const opened = this.#open();
    const series = flags === noFlags ? opened : this.#parts.metrics.connection(this.#facts(), flags);
    series.closed++;
    this.#parts.accessLog.connection({
      downstream: this.#downstream,
      startedAt: this.#startTime,
      durationMs: this.#parts.clock.monotonic() - this.#startedAt,
      received: this.#received,
      sent: this.#sent,
      flags,
      detail: detailOf(error),
      failure: error === undefined ? undefined : messageOf(error),
      cluster: this.cluster,
      upstream: this.upstream,
    });
  }

  #open(): ConnectionSeries {
    if (this.#series !== undefined) return this.#series;
    this.#series = this.#parts.metrics.connection(this.#facts(), noFlags);
    this.#series.opened++;
    return this.#series;
  }

  #facts(): TrafficFacts {
    return this.#parts.factsOf(this.#downstream, this.cluster, this.workload);
  }
}

function detailOf(error: Error | undefined): string | undefined {
  if (error === undefined || !("details" in error) || typeof error.details !== "object" || error.details === null) return undefined;
  return "detail" in error.details && typeof error.details.detail === "string" ? error.details.detail : undefined;
}

interface Counters {
  readonly retries: Counter;
  readonly mirrorsDropped: Counter;
  readonly refused: Counter<"reason">;
  readonly observed: Counter<"action">;
  readonly overflows: Counter<"bound">;
  readonly ejections: Counter;
  readonly overloads: Counter<"bound">;
}

function createCounters(registry: MetricRegistry, accessLog: AccessLog): Counters {
  const registers = [registry];
  new ScrapedCounter(registry, "fairway_waypoint_access_log_dropped_total", "Access log lines dropped because the reader was slow", [], () => [
    { labels: {}, value: accessLog.dropped },
  ]);
  return {
    retries: new Counter({ name: "fairway_waypoint_retries_total", help: "Attempts beyond the first", registers }),
    mirrorsDropped: new Counter({ name: "fairway_waypoint_mirrors_dropped_total", help: "Copies of requests that were not sent or failed", registers }),
    refused: new Counter({ name: "fairway_waypoint_refused_total", help: "Tunnels and CONNECTs refused", labelNames: ["reason"], registers }),
    observed: new Counter({ name: "fairway_waypoint_observed_total", help: "What policies in dry run would have decided", labelNames: ["action"], registers }),
    overflows: new Counter({
      name: "fairway_waypoint_overflows_total",
      help: "Requests that met a breaker: refused, or for connections waiting as well",
      labelNames: ["bound"],
      registers,
    }),
    ejections: new Counter({ name: "fairway_waypoint_ejections_total", help: "Endpoints left out for a while", registers }),
    overloads: new Counter({ name: "fairway_waypoint_overloads_total", help: "Connections turned away at a bound", labelNames: ["bound"], registers }),
  };
}
