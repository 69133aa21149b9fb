/**
 * The TCP metrics of ztunnel contract 9.1. A label set is built once per pair of ends and then only counted on: plain numbers on the hot
 * path, text at the scrape. The number of series is bounded; over the bound the one idle longest makes room, and if none is idle the
 * connection is counted under labels that say nothing, so that no peer can grow this process's memory by the names it uses.
 */
import { formatBaggage } from "@fairway/hbone";
import { Counter, Gauge, type MetricRegistry } from "@fairway/runtime";
import { type ConnectionRecord, type End, unknownEnd } from "./connection-record.ts";
import type { ResponseFlag } from "./failure.ts";
import { type TrafficLabels, trafficLabelNames, trafficLabels } from "./traffic-labels.ts";

/** Label sets kept at most; each is about a kilobyte. */
const defaultMaxTrafficSeries = 10_000;
/** Label sets looked at for one that is idle before giving up. */
const evictionScan = 64;

/** The counters of one label set. */
export class TrafficSeries {
  readonly labels: TrafficLabels;
  readonly failures: Map<ResponseFlag, number> = new Map();
  /** Connections open now; a series in use is never dropped. */
  live = 0;
  opened = 0;
  /** Closed without a failure. */
  closed = 0;
  /** Client to server, whoever reports. */
  received = 0;
  /** Server to client, whoever reports. */
  sent = 0;
  evicted = false;

  constructor(labels: TrafficLabels) {
    this.labels = labels;
  }

  open(): void {
    this.live++;
    this.opened++;
  }

  close(flag: ResponseFlag): void {
    this.live--;
    if (flag === "-") this.closed++;
    else this.failures.set(flag, (this.failures.get(flag) ?? 0) + 1);
  }
}

type CounterReading = Awaited<ReturnType<Counter["get"]>>;

/** A counter whose values are read when it is scraped. */
class ScrapedCounter extends Counter {
  readonly #read: () => CounterReading["values"];

  constructor(registry: MetricRegistry, name: string, help: string, read: () => CounterReading["values"]) {
    super({ name, help, labelNames: trafficLabelNames, registers: [registry] });
    this.#read = read;
  }

  override async get(): Promise<CounterReading> {
    return { ...(await super.get()), values: this.#read() };
  }
}

interface KnownPair {
  readonly from: End["workload"];
  readonly to: End["workload"];
  readonly series: TrafficSeries;
}

/** Which series a connection counts on. */
export class TrafficMetrics {
  readonly #maxSeries: number;
  /** By label text. Insertion order is age. */
  readonly #series = new Map<string, TrafficSeries>();
  /** The way around building labels: valid while both workloads are the same objects. */
  readonly #pairs = new Map<string, KnownPair>();
  readonly #overflow: Counter;
  #anonymous: TrafficSeries | undefined;

  constructor(registry: MetricRegistry, options: { maxSeries?: number } = {}) {
    this.#maxSeries = options.maxSeries ?? defaultMaxTrafficSeries;
    const counted = (name: string, help: string, values: (series: TrafficSeries) => CounterReading["values"]): void => {
      new ScrapedCounter(registry, name, help, () => this.#all().flatMap(values));
    };
    counted("istio_tcp_connections_opened_total", "Connections opened", ({ labels, opened }) => [{ labels, value: opened }]);
    counted("istio_tcp_connections_closed_total", "Connections closed", (series) => [
      ...(series.closed > 0 ? [{ labels: series.labels, value: series.closed }] : []),
      ...failures(series),
    ]);
    counted("istio_tcp_received_bytes_total", "Bytes from client to server", ({ labels, received }) => [{ labels, value: received }]);
    counted("istio_tcp_sent_bytes_total", "Bytes from server to client", ({ labels, sent }) => [{ labels, value: sent }]);
    counted("istio_tcp_connections_failed_total", "Connections that failed, by reason", failures);
    const inUse: Gauge = new Gauge({
      name: "fairway_ztunnel_traffic_series",
      help: "Label sets of the TCP metrics held now",
      registers: [registry],
      collect: () => inUse.set(this.#series.size),
    });
    this.#overflow = new Counter({
      name: "fairway_ztunnel_traffic_series_overflow_total",
      help: "Connections counted without labels because every label set was in use",
      registers: [registry],
    });
  }

  /** The counters of this connection's ends. */
  series(record: ConnectionRecord): TrafficSeries {
    const key = pairKey(record);
    const pair = this.#pairs.get(key);
    if (pair !== undefined && pair.from === record.from.workload && pair.to === record.to.workload && !pair.series.evicted) return pair.series;
    const series = this.#find(record);
    if (this.#pairs.size >= this.#maxSeries) dropOldest(this.#pairs);
    this.#pairs.set(key, { from: record.from.workload, to: record.to.workload, series });
    return series;
  }

  #find(record: ConnectionRecord): TrafficSeries {
    const labels = trafficLabels(record);
    const text = Object.values(labels).join("\n");
    const known = this.#series.get(text);
    if (known !== undefined) return known;
    if (this.#series.size >= this.#maxSeries && !this.#evict()) {
      this.#overflow.inc();
      this.#anonymous ??= new TrafficSeries(trafficLabels({ ...record, from: unknownEnd, to: unknownEnd, service: undefined, mutualTls: false }));
      return this.#anonymous;
    }
    const fresh = new TrafficSeries(labels);
    this.#series.set(text, fresh);
    return fresh;
  }

  #evict(): boolean {
    let looked = 0;
    for (const [text, series] of this.#series) {
      if (looked++ >= evictionScan) return false;
      if (series.live > 0) continue;
      series.evicted = true;
      this.#series.delete(text);
      return true;
    }
    return false;
  }

  #all(): TrafficSeries[] {
    const all = [...this.#series.values()];
    return this.#anonymous === undefined ? all : [...all, this.#anonymous];
  }
}

function failures({ labels, failures: counts }: TrafficSeries): CounterReading["values"] {
  return [...counts].map(([flag, value]) => ({ labels: { ...labels, response_flags: flag }, value }));
}

function pairKey({ direction, from, to, service, mutualTls }: ConnectionRecord): string {
  return [direction, endKey(from), endKey(to), service?.namespace, service?.hostname, mutualTls].join("\n");
}

function endKey({ workload, identity, baggage }: End): string {
  return `${workload?.uid ?? ""}\t${identity ?? ""}\t${workload !== undefined || baggage === undefined ? "" : (formatBaggage(baggage) ?? "")}`;
}

function dropOldest(map: Map<string, unknown>): void {
  const oldest = map.keys().next();
  if (oldest.done !== true) map.delete(oldest.value);
}
