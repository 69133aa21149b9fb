/** What the node agent counts. */
import { Counter, Gauge, type MetricRegistry } from "@fairway/runtime";

export interface AgentMetrics {
  readonly enrolled: Gauge;
  /** Pods whose rules stand while ztunnel does not serve them yet: their traffic is blocked. */
  readonly pending: Gauge;
  readonly failures: Counter<"step">;
  readonly repairs: Counter;
  readonly ztunnels: Gauge;
  readonly cniRequests: Counter<"result">;
  readonly resyncAge: Gauge;
}

export interface AgentFacts {
  readonly enrolled: () => number;
  readonly pending: () => number;
  readonly ztunnels: () => number;
  readonly resyncAgeSeconds: () => number;
}

/** Gauges read `facts` when they are scraped. */
export function createAgentMetrics(registry: MetricRegistry, facts: AgentFacts): AgentMetrics {
  const registers = [registry];
  const gauge = (name: string, help: string, read: () => number): Gauge =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  return {
    enrolled: gauge("fairway_node_agent_enrolled_pods", "Pods of this node that are proven to be captured", facts.enrolled),
    pending: gauge("fairway_node_agent_pending_pods", "Pods of this node with rules and without a ztunnel: their traffic is blocked", facts.pending),
    ztunnels: gauge("fairway_node_agent_ztunnel_connections", "ztunnels connected to this node agent", facts.ztunnels),
    resyncAge: gauge("fairway_node_agent_resync_age_seconds", "Time since every enrolled pod was last checked", facts.resyncAgeSeconds),
    failures: new Counter({
      name: "fairway_node_agent_enrolment_failures_total",
      help: "Failed enrolment attempts by the step that failed",
      labelNames: ["step"],
      registers,
    }),
    repairs: new Counter({ name: "fairway_node_agent_drift_repairs_total", help: "Pods whose rules were found changed and were put back", registers }),
    cniRequests: new Counter({
      name: "fairway_node_agent_cni_requests_total",
      help: "Requests of the CNI plugin by result",
      labelNames: ["result"],
      registers,
    }),
  };
}
