/**
 * Bounded sets of counters, one per label set: plain numbers on the hot path, text at the scrape. Over the bound the oldest set makes
 * room, so that no peer can grow this process's memory by the names it uses.
 */
import { Counter, Gauge, Histogram, type MetricRegistry } from "@fairway/runtime";
import type { Labels } from "./traffic-labels.ts";

/** Milliseconds and bytes alike, as the reference has them. */
export const bucketBounds: readonly number[] = [
  0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000, 3_600_000,
];

/** One histogram: how many observations fell into each bucket, the last beyond all bounds. */
export class Distribution {
  readonly counts: Float64Array = new Float64Array(bucketBounds.length + 1);
  sum = 0;
  count = 0;

  observe(value: number): void {
    let index = 0;
    while (index < bucketBounds.length && value > (bucketBounds[index] ?? 0)) index++;
    this.counts[index] = (this.counts[index] ?? 0) + 1;
    this.sum += value;
    this.count++;
  }
}

/** Label sets by a cheap key, the oldest first. */
export class SeriesTable<S> {
  readonly #max: number;
  readonly #series = new Map<string, S>();
  #evicted = 0;

  constructor(max: number) {
    this.#max = max;
  }

  get(key: string, make: () => S): S {
    const known = this.#series.get(key);
    if (known !== undefined) return known;
    if (this.#series.size >= this.#max) {
      const oldest = this.#series.keys().next();
      if (oldest.done !== true) this.#series.delete(oldest.value);
      this.#evicted++;
    }
    const fresh = make();
    this.#series.set(key, fresh);
    return fresh;
  }

  get size(): number {
    return this.#series.size;
  }

  get evicted(): number {
    return this.#evicted;
  }

  values(): Iterable<S> {
    return this.#series.values();
  }
}

type CounterReading = Awaited<ReturnType<Counter["get"]>>;
type HistogramReading = Awaited<ReturnType<Histogram["get"]>>;

/** A counter whose values are read when it is scraped. */
export class ScrapedCounter extends Counter {
  readonly #read: () => CounterReading["values"];

  constructor(registry: MetricRegistry, name: string, help: string, labelNames: readonly string[], read: () => CounterReading["values"]) {
    super({ name, help, labelNames, registers: [registry] });
    this.#read = read;
  }

  override async get(): Promise<CounterReading> {
    return { ...(await super.get()), values: this.#read() };
  }
}

/** A histogram whose values are read when it is scraped. */
export class ScrapedHistogram extends Histogram {
  readonly #name: string;
  readonly #read: () => Iterable<{ readonly labels: Labels; readonly distribution: Distribution }>;
  /** Gives everything of a reading but its values. */
  readonly #frame: Histogram;

  constructor(
    registry: MetricRegistry,
    name: string,
    help: string,
    labelNames: readonly string[],
    read: () => Iterable<{ readonly labels: Labels; readonly distribution: Distribution }>,
  ) {
    super({ name, help, labelNames, buckets: [...bucketBounds], registers: [registry] });
    this.#name = name;
    this.#read = read;
    this.#frame = new Histogram({ name, help, labelNames, registers: [] });
  }

  override async get(): Promise<HistogramReading> {
    const values = [...this.#read()].flatMap(({ labels, distribution }) => this.#valuesOf(labels, distribution));
    return { ...(await this.#frame.get()), values };
  }

  /** What the library asks a histogram for when it writes text. */
  getForPromString(): Promise<HistogramReading> {
    return this.get();
  }

  #valuesOf(labels: Labels, { counts, sum, count }: Distribution): HistogramReading["values"] {
    let below = 0;
    const buckets = [...bucketBounds, "+Inf"].map((bound, index) => {
      below += counts[index] ?? 0;
      return { labels: { ...labels, le: bound }, value: below, metricName: `${this.#name}_bucket` };
    });
    return [...buckets, { labels, value: sum, metricName: `${this.#name}_sum` }, { labels, value: count, metricName: `${this.#name}_count` }];
  }
}

/** How many label sets a table holds, and how many it let go. */
export function reportTable(registry: MetricRegistry, name: string, table: SeriesTable<unknown>): void {
  const registers = [registry];
  const held: Gauge = new Gauge({
    name: `fairway_waypoint_${name}_series`,
    help: `Label sets of the ${name} metrics held now`,
    registers,
    collect: () => held.set(table.size),
  });
  new ScrapedCounter(registry, `fairway_waypoint_${name}_series_evicted_total`, `Label sets of the ${name} metrics let go for others`, [], () => [
    { labels: {}, value: table.evicted },
  ]);
}
