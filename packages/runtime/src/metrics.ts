/** The metric registry of a process, exposed as OpenMetrics text. The only import of the metrics library. */
import { AggregatorRegistry, Counter, Gauge, Histogram, type OpenMetricsContentType, Registry } from "prom-client";

export { Counter, Gauge, Histogram };
export type MetricRegistry = Registry<OpenMetricsContentType>;

export function createRegistry(): MetricRegistry {
  const registry = new Registry<OpenMetricsContentType>();
  registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
  return registry;
}

/** What metrics are served from. */
export interface MetricSource {
  /** The text of this moment. */
  metrics(): Promise<string>;
}

/** The values of one thread's registry, plain enough to be posted to another thread. */
export type MetricReading = readonly object[];

/** Reads every value of `registry`. In OpenMetrics the suffix of a counter belongs to its series, not to its name; the library adds it. */
export async function readMetrics(registry: MetricRegistry): Promise<MetricReading> {
  const metrics = await registry.getMetricsAsJSON();
  return metrics.map((metric) => (String(metric.type) === "counter" ? { ...metric, name: metric.name.replace(/_total$/, "") } : metric));
}

/**
 * The metrics of several threads as those of one process: equal series are added up. `others` reads the other threads; when one does not
 * answer the scrape fails, so that no counter ever seems to go back.
 */
export function mergedMetrics(registry: MetricRegistry, others: () => Promise<readonly MetricReading[]>): MetricSource {
  return {
    metrics: async () => {
      const readings = await Promise.all([readMetrics(registry), others()]);
      const merged = AggregatorRegistry.aggregate<OpenMetricsContentType>([readings[0], ...readings[1]].map((reading) => [...reading]));
      merged.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
      return merged.metrics();
    },
  };
}
