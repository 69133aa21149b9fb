/** Where this process learns what it serves and gets its certificate: the control plane, over one stream each. */

import { type CaClient, type ControlPlane as ControlPlaneAccess, controlPlane, grpcCaClient } from "@fairway/pki";
import { type Clock, Counter, type Logger, type MetricRegistry } from "@fairway/runtime";
import { createWaypointView, type WaypointView } from "@fairway/xds";
import type { Config, ControlPlane } from "./config.ts";

/** Throws PKI_BAD_* for an address that is none. */
export function openWaypoint(config: Config, { log, clock, registry }: { log: Logger; clock: Clock; registry: MetricRegistry }): WaypointView {
  const view = createWaypointView({ access: access(config, config.xds), node: config.node, clock, log: log.scope("xds") });
  countTerminations(view, registry);
  return view;
}

/** Throws PKI_BAD_* for an address that is none. */
export function openCa(config: Config): CaClient {
  return grpcCaClient({ controlPlane: access(config, config.ca), impersonate: false });
}

function access(config: Config, { address, roots, headers, altHostname }: ControlPlane): ControlPlaneAccess {
  return controlPlane({
    address,
    roots,
    token: config.token,
    clusterId: config.proxy.clusterId,
    headers,
    alternativeHostname: altHostname,
  });
}

/** How streams end, by the reference's words. The view outlives every subscriber: nothing to dispose. */
function countTerminations({ connection }: WaypointView, registry: MetricRegistry): void {
  const terminations = new Counter({
    name: "istio_xds_connection_terminations_total",
    help: "Discovery streams that ended, by reason",
    labelNames: ["reason"],
    registers: [registry],
  });
  let connected = false;
  connection.subscribe((state) => {
    if (state.kind === "waiting") terminations.inc({ reason: state.error === undefined ? "Complete" : connected ? "Error" : "ConnectionError" });
    connected = state.kind === "connected";
  });
}
