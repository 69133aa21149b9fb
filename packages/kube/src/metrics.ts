/** What is measured about the watches: how fresh each is, and how often it had to be resumed. */
import { Counter, Gauge, type MetricRegistry } from "@fairway/runtime";

export interface KubeMetrics {
  readonly restarts: Counter<"resource" | "reason">;
  /** Reports the age of a watch under `resource` until untracked. */
  track(resource: string, ageSeconds: () => number): void;
  untrack(resource: string): void;
}

export function createKubeMetrics(registry: MetricRegistry): KubeMetrics {
  const ages = new Map<string, () => number>();
  const restarts = new Counter({
    name: "fairway_kube_watch_restarts_total",
    help: "Times a watch of the Kubernetes API ended and was resumed, by reason.",
    labelNames: ["resource", "reason"] as const,
    registers: [registry],
  });
  new Gauge({
    name: "fairway_kube_watch_age_seconds",
    help: "Seconds since a watch of the Kubernetes API last heard from the server.",
    labelNames: ["resource"] as const,
    registers: [registry],
    collect() {
      this.reset();
      for (const [resource, age] of ages) this.set({ resource }, age());
    },
  });
  return { restarts, track: (resource, age) => void ages.set(resource, age), untrack: (resource) => void ages.delete(resource) };
}
