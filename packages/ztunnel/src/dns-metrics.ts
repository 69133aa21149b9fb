/** The DNS metrics of ztunnel contract 9.1: what was asked, what had to be asked elsewhere, and how that went. */
import type { Workload } from "@fairway/model";
import { dnsTypeName } from "@fairway/protocol";
import { Counter, Histogram, type MetricRegistry } from "@fairway/runtime";
import type { End } from "./connection-record.ts";
import { sourceLabelNames, sourceLabels } from "./traffic-labels.ts";

export type DnsProtocol = "udp" | "tcp";

const labelNames = ["request_query_type", "request_protocol", "source_canonical_service", "source_canonical_revision"] as const;
type DnsLabelName = (typeof labelNames)[number];
export type DnsLabels = Readonly<Record<DnsLabelName, string>>;

export interface DnsMetrics {
  readonly requests: Counter<DnsLabelName>;
  readonly upstreamRequests: Counter<DnsLabelName>;
  readonly upstreamFailures: Counter<DnsLabelName>;
  readonly upstreamSeconds: Histogram<DnsLabelName>;
}

/** Registers everything once. */
export function createDnsMetrics(registry: MetricRegistry): DnsMetrics {
  const shared = { labelNames: [...labelNames], registers: [registry] };
  return {
    requests: new Counter({ name: "istio_dns_requests_total", help: "DNS questions of pods", ...shared }),
    upstreamRequests: new Counter({ name: "istio_dns_upstream_requests_total", help: "DNS questions passed on to a resolver", ...shared }),
    upstreamFailures: new Counter({ name: "istio_dns_upstream_failures_total", help: "DNS questions that no resolver answered", ...shared }),
    upstreamSeconds: new Histogram({
      name: "istio_dns_upstream_request_duration_seconds",
      help: "Time until a resolver answered, or until it was given up",
      buckets: [0.0005, 0.001, 0.01, 0.1, 1, 5],
      ...shared,
    }),
  };
}

/** Names counted apart; those beyond share one. */
const maxNames = 1_000;

/** Dials of workloads that are known by name, and so had to be looked up (ztunnel contract 5.2). */
export class OnDemandNames {
  readonly #counter: Counter;
  readonly #names = new Set<string>();

  constructor(registry: MetricRegistry) {
    this.#counter = new Counter({
      name: "istio_on_demand_dns_total",
      help: "Workloads known by name that were looked up to be dialled",
      labelNames: [...sourceLabelNames, "hostname"],
      registers: [registry],
    });
  }

  count(source: End, hostname: string): void {
    if (this.#names.size < maxNames) this.#names.add(hostname);
    this.#counter.inc({ ...sourceLabels(source), hostname: this.#names.has(hostname) ? hostname : "unknown" });
  }
}

/** Types that are not well known share one name: a client must not be able to make up series. */
export function dnsLabels(type: number, protocol: DnsProtocol, { canonicalName, canonicalRevision }: Workload): DnsLabels {
  return {
    request_query_type: dnsTypeName(type),
    request_protocol: protocol,
    source_canonical_service: canonicalName === "" ? "unknown" : canonicalName,
    source_canonical_revision: canonicalRevision === "" ? "unknown" : canonicalRevision,
  };
}
