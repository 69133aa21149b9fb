/** Counters of a tunnel pool. */
import { Counter, Gauge, type MetricRegistry } from "@fairway/runtime";

export interface HboneMetrics {
  readonly tunnels: Gauge;
  readonly dialled: Counter;
  readonly dialFailures: Counter;
  readonly streams: Counter;
  readonly retries: Counter;
}

/** Registers the metrics of this package. */
export function createHboneMetrics(registry: MetricRegistry): HboneMetrics {
  const registers = [registry];
  return {
    tunnels: new Gauge({ name: "fairway_hbone_tunnels", help: "Pooled tunnels that are open.", registers }),
    dialled: new Counter({ name: "fairway_hbone_tunnels_dialled_total", help: "Tunnels that were dialled and opened.", registers }),
    dialFailures: new Counter({ name: "fairway_hbone_tunnel_dial_failures_total", help: "Dials of tunnels that failed.", registers }),
    streams: new Counter({ name: "fairway_hbone_streams_total", help: "Streams for which the pool had or made a tunnel.", registers }),
    retries: new Counter({ name: "fairway_hbone_stream_retries_total", help: "Streams tried again because their tunnel was lost.", registers }),
  };
}
