/**
 * The metrics of a ztunnel (contract 9.1) besides those of the control plane clients, which the libraries register themselves. What
 * connections count is counted on the thread that carries them, and added up when it is read.
 */
import { readdirSync, readFileSync } from "node:fs";
import type { CertificateState } from "@fairway/pki";
import { Counter, Gauge, type MetricRegistry } from "@fairway/runtime";
import { createDnsMetrics, type DnsMetrics, OnDemandNames } from "./dns-metrics.ts";
import { TrafficMetrics } from "./traffic-metrics.ts";

/** What the process counts once. */
export interface ProcessMetrics {
  readonly activeProxies: Gauge;
  readonly pendingProxies: Gauge;
  readonly proxiesStarted: Counter;
  readonly proxiesStopped: Counter;
}

/** What each thread that carries traffic counts. */
export interface ZtunnelMetrics {
  readonly traffic: TrafficMetrics;
  readonly dns: DnsMetrics;
  readonly onDemandNames: OnDemandNames;
  /** Application connections open now, by reporter. */
  readonly openSockets: Gauge<"reporter">;
  /** Connections and questions turned away because a bound was reached; `bound` is from a closed set. */
  readonly overloads: Counter<"bound">;
  /** Peers turned away or cut off because they are revoked, by reporter. */
  readonly revokedPeers: Counter<"reporter">;
  /** Outbound connections that tried another endpoint before the first byte. */
  readonly retries: Counter;
}

export function createZtunnelMetrics(registry: MetricRegistry): ZtunnelMetrics {
  const registers = [registry];
  const revokedPeers = new Counter({
    name: "istio_crl_policy_rejections_total",
    help: "Handshakes refused and tunnels ended because the peer is revoked",
    labelNames: ["reporter"],
    registers,
  });
  const untracked = new Counter({
    name: "istio_crl_untracked_connections_total",
    help: "Tunnels that a new revocation list would not end; there are none",
    labelNames: ["reporter"],
    registers,
  });
  for (const reporter of ["source", "destination"]) for (const counter of [revokedPeers, untracked]) counter.inc({ reporter }, 0);
  return {
    traffic: new TrafficMetrics(registry),
    dns: createDnsMetrics(registry),
    onDemandNames: new OnDemandNames(registry),
    openSockets: new Gauge({ name: "istio_tcp_sockets_open", help: "Application connections open now", labelNames: ["reporter"], registers }),
    overloads: new Counter({ name: "fairway_ztunnel_overload_total", help: "Connections turned away at a bound", labelNames: ["bound"], registers }),
    revokedPeers,
    retries: new Counter({ name: "fairway_ztunnel_outbound_retries_total", help: "Dials repeated at another endpoint", registers }),
  };
}

export function createProcessMetrics(registry: MetricRegistry, meshVersion: string): ProcessMetrics {
  const registers = [registry];
  const build = new Gauge({ name: "istio_build", help: "What runs here", labelNames: ["component", "tag"], registers });
  build.set({ component: "ztunnel", tag: meshVersion }, 1);
  const openFiles: Gauge = new Gauge({
    name: "process_open_fds",
    help: "File descriptors in use",
    registers,
    collect: () => openFiles.set(countDescriptors()),
  });
  new Gauge({ name: "process_max_fds", help: "File descriptors allowed", registers }).set(descriptorLimit());
  const memory: Gauge = new Gauge({
    name: "process_resident_memory_bytes",
    help: "Resident memory",
    registers,
    collect: () => memory.set(process.memoryUsage.rss()),
  });
  return {
    activeProxies: new Gauge({ name: "workload_manager_active_proxy_count", help: "Pods served", registers }),
    pendingProxies: new Gauge({ name: "workload_manager_pending_proxy_count", help: "Pods whose proxy could not start yet", registers }),
    proxiesStarted: new Counter({ name: "workload_manager_proxies_started_total", help: "Pod proxies started", registers }),
    proxiesStopped: new Counter({ name: "workload_manager_proxies_stopped_total", help: "Pod proxies stopped", registers }),
  };
}

/** Certificates by state, and when the first of them ends: what an alert on expiry looks at. */
export function registerCertificateMetrics(registry: MetricRegistry, states: () => Iterable<CertificateState>): void {
  const registers = [registry];
  const count: Gauge<"state"> = new Gauge({
    name: "fairway_ztunnel_certificates",
    help: "Workload certificates by state",
    labelNames: ["state"],
    registers,
    collect: () => {
      for (const kind of ["initializing", "available", "unavailable"] as const)
        count.set({ state: kind }, [...states()].filter((state) => state.kind === kind).length);
    },
  });
  const expiry: Gauge = new Gauge({
    name: "fairway_ztunnel_certificates_first_expiry_timestamp_seconds",
    help: "When the first of the certificates in use ends; 0 without any",
    registers,
    collect: () => {
      const ends = [...states()].flatMap((state) => (state.kind === "initializing" ? [] : (state.certificate?.notAfter ?? [])));
      expiry.set(ends.length === 0 ? 0 : Math.min(...ends) / 1_000);
    },
  });
}

/** One less than listed: the listing itself holds a descriptor. */
function countDescriptors(): number {
  try {
    return readdirSync("/proc/self/fd").length - 1;
  } catch {
    return 0;
  }
}

function descriptorLimit(): number {
  try {
    return Number(/^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1] ?? 0);
  } catch {
    return 0;
  }
}
