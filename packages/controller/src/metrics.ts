/** What the controller measures, under the names that are commonly scraped (controller contract 6.6). */
import { type Clock, Counter, Gauge, type MetricRegistry } from "@fairway/runtime";

export interface ControllerMetrics {
  readonly csrs: Counter;
  readonly csrErrors: Counter;
  readonly issued: Counter;
  readonly authenticationFailures: Counter;
  readonly published: Counter<"type">;
  readonly resources: Gauge<"type">;
  readonly xdsClients: Gauge<"type">;
  readonly xdsPushes: Counter<"type">;
  readonly xdsRejects: Counter<"type">;
  readonly xdsExpiredNonces: Counter<"type">;
  readonly rootExpiry: Gauge;
}

export function createControllerMetrics(registry: MetricRegistry, clock: Clock): ControllerMetrics {
  const registers = [registry];
  const startedAt = clock.monotonic();
  new Gauge({
    name: "istiod_uptime_seconds",
    help: "Seconds since the controller started.",
    registers,
    collect() {
      this.set((clock.monotonic() - startedAt) / 1000);
    },
  });
  return {
    csrs: new Counter({ name: "citadel_server_csr_count", help: "Certificates asked for.", registers }),
    csrErrors: new Counter({
      name: "citadel_server_csr_parsing_err_count",
      help: "Requests for certificates that could not be signed as they were.",
      registers,
    }),
    issued: new Counter({ name: "citadel_server_success_cert_issuance_count", help: "Certificates signed.", registers }),
    authenticationFailures: new Counter({ name: "citadel_server_authentication_failure_count", help: "Callers that were refused.", registers }),
    published: new Counter({
      name: "fairway_controller_published",
      help: "Resources that were set, replaced or removed, by type.",
      labelNames: ["type"] as const,
      registers,
    }),
    resources: new Gauge({ name: "fairway_controller_resources", help: "Resources currently served, by type.", labelNames: ["type"] as const, registers }),
    xdsClients: new Gauge({ name: "pilot_xds", help: "Connected discovery clients: node, waypoint or grpc.", labelNames: ["type"] as const, registers }),
    xdsPushes: new Counter({ name: "pilot_xds_pushes", help: "Responses sent to clients, by type.", labelNames: ["type"] as const, registers }),
    xdsRejects: new Counter({ name: "pilot_total_xds_rejects", help: "Responses that clients rejected, by type.", labelNames: ["type"] as const, registers }),
    xdsExpiredNonces: new Counter({
      name: "pilot_xds_expired_nonce",
      help: "Requests that spoke of a response that was not the last one, by type.",
      labelNames: ["type"] as const,
      registers,
    }),
    rootExpiry: new Gauge({ name: "citadel_server_root_cert_expiry_timestamp", help: "When the signing chain ends, seconds since the epoch.", registers }),
  };
}
