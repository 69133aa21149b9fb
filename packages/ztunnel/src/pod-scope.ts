/** What the directions of one pod share. Nothing here belongs to the process: a pod with its scope may live on any thread. */
import type { TunnelEngine } from "@fairway/hbone";
import type { PodNetwork } from "@fairway/linux";
import type { ResolveContext, Snapshot } from "@fairway/model";
import type { CertificateSource, MeshTls } from "@fairway/pki";
import type { Clock, Logger, TaskGroup } from "@fairway/runtime";
import type { MeshView } from "@fairway/xds";
import type { ProxyConfig } from "./config.ts";
import type { Connections } from "./connections.ts";
import type { IdleTunnels } from "./idle-tunnels.ts";
import type { LocalWorkloadSource } from "./local-workload.ts";
import type { MeshNames } from "./mesh-names.ts";
import type { NameLookup } from "./next-hop.ts";
import type { Revocation } from "./revocation.ts";
import type { Telemetry } from "./telemetry.ts";

/** Enough to serve plaintext. */
export interface PodScope extends Telemetry {
  readonly config: ProxyConfig;
  /** The pod's own uid in Kubernetes; tunnels belong to it. */
  readonly owner: string;
  readonly network: PodNetwork;
  readonly mesh: MeshView;
  readonly names: MeshNames;
  readonly local: LocalWorkloadSource;
  readonly connections: Connections;
  readonly tasks: TaskGroup;
  readonly log: Logger;
  readonly clock: Clock;
  /** 0 ≤ r < 1. */
  readonly random: () => number;
  readonly randomBytes: (size: number) => Uint8Array;
  readonly lookup: NameLookup;
}

/** With the right to be the pod towards others. */
export interface TunnelScope extends PodScope {
  readonly certificates: Pick<CertificateSource, "fetch">;
  readonly tls: MeshTls;
  readonly engine: TunnelEngine;
  readonly idleTunnels: IdleTunnels;
  /** Undefined where nobody is ever revoked. */
  readonly revocation: Revocation | undefined;
}

/** TCP connects, everywhere (ztunnel contract 7.5). */
export const dialTimeoutMs = 10_000;
/** From the accept to the joined connection, all attempts included. */
export const establishTimeoutMs = 45_000;

/**
 * What the model's decisions are given, for one decision of `MeshView.decide`: when it runs again, it draws the same numbers again, so that
 * what happens to be held here is never chosen for that.
 */
export function resolveContext(scope: PodScope): (snapshot: Snapshot) => ResolveContext {
  const draws: number[] = [];
  const ports = ownPorts(scope.config);
  return (snapshot) => {
    let drawn = 0;
    const random = (): number => {
      const draw = draws[drawn] ?? scope.random();
      draws[drawn++] = draw;
      return draw;
    };
    return { snapshot, network: scope.config.network, random, ownPorts: ports };
  };
}

/** Ports that nothing may be forwarded to (ztunnel contract 5.1 and 5B.4). */
export function ownPorts({ ports }: ProxyConfig): ReadonlySet<number> {
  return new Set([ports.outbound, ports.plaintext, ports.hbone, ports.socks5, ports.httpConnect]);
}
