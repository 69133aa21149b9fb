/** The metric registry of a process, exposed as OpenMetrics text. The only import of the metrics library. */
import { Counter, Gauge, Histogram, type OpenMetricsContentType, Registry } from "prom-client";

export { Counter, Gauge, Histogram };
export type MetricRegistry = Registry<OpenMetricsContentType>;

export function createRegistry(): MetricRegistry {
  const registry = new Registry<OpenMetricsContentType>();
  registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
  return registry;
}
