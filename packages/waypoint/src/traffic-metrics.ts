/** The mesh's standard metrics as a waypoint reports them: requests, their durations and sizes, and connections of bytes. */
import type { MetricRegistry } from "@fairway/runtime";
import { commonLabelNames, type Labels, requestLabelNames, type TrafficFacts, type TrafficLabels } from "./traffic-labels.ts";
import { Distribution, reportTable, ScrapedCounter, ScrapedHistogram, SeriesTable } from "./traffic-series.ts";

/** Label sets kept at most; each is about two kilobytes. */
const maxRequestSeries = 5_000;
const maxConnectionSeries = 5_000;

interface RequestSeries {
  readonly labels: Labels;
  readonly durations: Distribution;
  readonly requestBytes: Distribution;
  readonly responseBytes: Distribution;
}

export interface ConnectionSeries {
  readonly labels: Labels;
  opened: number;
  closed: number;
  received: number;
  sent: number;
}

export interface RequestObservation extends TrafficFacts {
  readonly protocol: "http" | "grpc";
  readonly status: number;
  readonly grpcStatus: string;
  readonly flags: string;
  readonly durationMs: number;
  readonly requestBytes: number;
  readonly responseBytes: number;
}

export class TrafficMetrics {
  readonly #labels: TrafficLabels;
  readonly #requests = new SeriesTable<RequestSeries>(maxRequestSeries);
  readonly #connections = new SeriesTable<ConnectionSeries>(maxConnectionSeries);
  /** Small numbers for label sets, so that keys stay short. */
  readonly #numbers = new WeakMap<Labels, number>();
  readonly #numbersByText = new SeriesTable<number>(maxRequestSeries);
  #nextNumber = 1;

  constructor(registry: MetricRegistry, labels: TrafficLabels) {
    this.#labels = labels;
    const requests = this.#requests;
    const connections = this.#connections;
    new ScrapedCounter(registry, "istio_requests_total", "Requests", requestLabelNames, () =>
      [...requests.values()].map((series) => ({ labels: series.labels, value: series.durations.count })),
    );
    const distribution = (name: string, help: string, of: (series: RequestSeries) => Distribution): void => {
      new ScrapedHistogram(registry, name, help, requestLabelNames, () =>
        [...requests.values()].map((series) => ({ labels: series.labels, distribution: of(series) })),
      );
    };
    distribution("istio_request_duration_milliseconds", "Duration of requests", ({ durations }) => durations);
    distribution("istio_request_bytes", "Body sizes of requests", ({ requestBytes }) => requestBytes);
    distribution("istio_response_bytes", "Body sizes of answers", ({ responseBytes }) => responseBytes);
    const counted = (name: string, help: string, of: (series: ConnectionSeries) => number): void => {
      new ScrapedCounter(registry, name, help, commonLabelNames, () =>
        [...connections.values()].map((series) => ({ labels: series.labels, value: of(series) })),
      );
    };
    counted("istio_tcp_connections_opened_total", "Connections opened", ({ opened }) => opened);
    counted("istio_tcp_connections_closed_total", "Connections closed", ({ closed }) => closed);
    counted("istio_tcp_received_bytes_total", "Bytes from client to server", ({ received }) => received);
    counted("istio_tcp_sent_bytes_total", "Bytes from server to client", ({ sent }) => sent);
    reportTable(registry, "request", requests);
    reportTable(registry, "connection", connections);
  }

  observeRequest(observed: RequestObservation): void {
    const { protocol, status, grpcStatus, flags } = observed;
    const key = `${this.#ends(observed)}|${protocol}|${status}|${grpcStatus}|${flags}`;
    const series = this.#requests.get(key, () => ({
      labels: { ...this.#common(observed, protocol, flags), response_code: String(status), grpc_response_status: grpcStatus },
      durations: new Distribution(),
      requestBytes: new Distribution(),
      responseBytes: new Distribution(),
    }));
    series.durations.observe(observed.durationMs);
    series.requestBytes.observe(observed.requestBytes);
    series.responseBytes.observe(observed.responseBytes);
  }

  /** The counters of a connection whose facts are what they are now. */
  connection(facts: TrafficFacts, flags: string): ConnectionSeries {
    return this.#connections.get(`${this.#ends(facts)}|${flags}`, () => ({
      labels: this.#common(facts, "tcp", flags),
      opened: 0,
      closed: 0,
      received: 0,
      sent: 0,
    }));
  }

  #ends(facts: TrafficFacts): string {
    const { downstream, workload, service } = facts;
    const source = this.#numberOf(this.#labels.source(downstream));
    const destination = this.#numberOf(this.#labels.destination(workload));
    return `${source}|${destination}|${downstream.target.name}|${service?.hostname ?? ""}`;
  }

  /** Equal labels of two tunnel streams get the same number: a client that reconnects is not somebody new. */
  #numberOf(labels: Labels): number {
    const known = this.#numbers.get(labels);
    if (known !== undefined) return known;
    const text = Object.values(labels).join("\n");
    const number = this.#numbersByText.get(text, () => this.#nextNumber++);
    this.#numbers.set(labels, number);
    return number;
  }

  #common(facts: TrafficFacts, protocol: string, flags: string): Labels {
    const { downstream, workload } = facts;
    return {
      reporter: "waypoint",
      ...this.#labels.source(downstream),
      ...this.#labels.destination(workload),
      ...this.#labels.service(facts),
      request_protocol: protocol,
      response_flags: flags,
      connection_security_policy: downstream.identity === undefined ? "none" : "mutual_tls",
    };
  }
}
