/**
 * Tunnels to the endpoints' ztunnels: pooled, proven to be who the mesh says lives there, and forgotten when a workload leaves, so that
 * whoever gets its address next never receives its requests.
 */
import type { Duplex } from "node:stream";
import {
  type ConnectRequest,
  defaultClientSettings,
  type HboneMetrics,
  type OpenedStream,
  type TunnelEngine,
  TunnelPool,
  type TunnelSettings,
} from "@fairway/hbone";
import {
  type Endpoint,
  formatSocketAddress,
  type NetworkId,
  type ServiceKey,
  type SocketAddress,
  type SpiffeId,
  serviceKey,
  type Workload,
  type WorkloadUid,
  workloadIdentity,
} from "@fairway/model";
import type { CertificateSource, MeshTls, WorkloadCertificate } from "@fairway/pki";
import { type Clock, messageOf } from "@fairway/runtime";
import type { MeshView } from "@fairway/xds";
import { dial } from "./dial.ts";
import { waypointError } from "./failure.ts";

/** Where every workload of the mesh accepts tunnels. */
export const hbonePort = 15_008;

export interface TunnelParts {
  readonly engine: TunnelEngine;
  readonly mesh: Pick<MeshView, "snapshot" | "changes">;
  readonly certificates: Pick<CertificateSource, "fetch">;
  readonly tls: MeshTls;
  readonly clock: Clock;
  /** This waypoint. */
  readonly identity: SpiffeId;
  readonly network: NetworkId;
  readonly idleMs: number;
  readonly maxStreamsPerTunnel: number;
  readonly metrics: HboneMetrics | undefined;
  /** Where workloads listen; a parameter, so that tests need not own the real port. */
  readonly port: number;
}

export class Tunnels implements AsyncDisposable {
  readonly #parts: TunnelParts;
  readonly #pool: TunnelPool;
  /** What was dialled, as it was then. */
  readonly #dialled = new Map<WorkloadUid, Workload>();
  readonly #subscription: Disposable;

  constructor(parts: TunnelParts) {
    const settings: TunnelSettings = { ...defaultClientSettings, maxStreams: parts.maxStreamsPerTunnel };
    this.#parts = parts;
    this.#pool = new TunnelPool({ engine: parts.engine, settings, clock: parts.clock, idleMs: parts.idleMs, metrics: parts.metrics });
    this.#subscription = parts.mesh.changes.subscribe(({ workloadsChanged }) => {
      if (workloadsChanged && this.#dialled.size > 0) this.#forgetTheGone();
    });
  }

  /**
   * A stream to the application at `endpoint`. Throws WAYPOINT_UPSTREAM_CONNECT for whatever keeps it from being there - also for a peer that
   * proves nobody the mesh knows at that address - or the signal's reason.
   */
  async open(
    endpoint: Pick<Endpoint, "address" | "workload">,
    service: { readonly namespace: string; readonly hostname: string } | undefined,
    request: Omit<ConnectRequest, "authority">,
    options: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<OpenedStream> {
    const { identity, port } = this.#parts;
    const { signal } = options;
    const workload = this.workloadOf(endpoint);
    const authority = formatSocketAddress(endpoint.address);
    if (workload === undefined)
      throw waypointError("WAYPOINT_UPSTREAM_CONNECT", `no workload of the mesh is known at ${authority}: nobody could prove to be it`);
    const expected = this.#expected(workload, service && serviceKey(service.namespace, service.hostname));
    this.#dialled.set(workload.uid, workload);
    const hop = { ip: endpoint.address.ip, port };
    const key = { owner: identity, source: identity, expected, workload: workload.uid, address: formatSocketAddress(hop) };
    try {
      return await this.#pool.open(key, { ...request, authority }, (dialing) => this.#dial(hop, expected, options.timeoutMs, dialing), { signal });
    } catch (cause) {
      if (signal.aborted) throw signal.reason;
      throw waypointError("WAYPOINT_UPSTREAM_CONNECT", `cannot reach ${authority} through the tunnel to ${key.address}: ${messageOf(cause)}`, { cause });
    }
  }

  /** Who lives at an endpoint: by uid, or by address when the uid is unknown. */
  workloadOf({ address, workload }: Pick<Endpoint, "address" | "workload">): Workload | undefined {
    const { mesh, network } = this.#parts;
    const named = workload === "" ? undefined : mesh.snapshot.workload(workload as WorkloadUid);
    if (named !== undefined) return named;
    return workload === "" ? mesh.snapshot.workloadByAddress(network, address.ip) : undefined;
  }

  drain(): void {
    this.#pool.drain();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#subscription[Symbol.dispose]();
    await this.#pool[Symbol.asyncDispose]();
  }

  /** The identities of the service's endpoints as published, and the workload's own (ztunnel contract 1.2). */
  #expected(workload: Workload, service: ServiceKey | undefined): readonly SpiffeId[] {
    const published = service === undefined ? undefined : this.#parts.mesh.snapshot.service(service)?.subjectAltNames;
    return [...new Set([...(published ?? []), workloadIdentity(workload)])];
  }

  async #dial(hop: SocketAddress, expected: readonly SpiffeId[], timeoutMs: number, signal: AbortSignal): Promise<Duplex> {
    const { tls, clock } = this.#parts;
    // Before the connect: without a certificate nothing may leave, and the peer must not be bothered.
    const certificate = await ownCertificate(this.#parts, signal);
    const socket = await dial(hop, { clock, timeoutMs, signal });
    const proven = await tls.connect(socket, certificate, expected, { signal });
    return proven.socket;
  }

  #forgetTheGone(): void {
    const { snapshot } = this.#parts.mesh;
    for (const [uid, dialled] of this.#dialled) {
      const now = snapshot.workload(uid);
      if (now === dialled) continue;
      if (now !== undefined && sameAddresses(now, dialled)) {
        this.#dialled.set(uid, now);
        continue;
      }
      this.#dialled.delete(uid);
      this.#pool.evictWorkload(uid);
    }
  }
}

/** This waypoint's certificate. Throws WAYPOINT_IDENTITY: without one nothing is sent and nothing accepted. */
export async function ownCertificate(
  { certificates, identity }: { readonly certificates: Pick<CertificateSource, "fetch">; readonly identity: SpiffeId },
  signal: AbortSignal,
): Promise<WorkloadCertificate> {
  try {
    return await certificates.fetch(identity, { signal, priority: "realtime" });
  } catch (cause) {
    if (signal.aborted) throw signal.reason;
    throw waypointError("WAYPOINT_IDENTITY", `there is no certificate for ${identity}: ${messageOf(cause)}`, { cause });
  }
}

function sameAddresses(one: Workload, other: Workload): boolean {
  return one.addresses.length === other.addresses.length && one.addresses.every((ip) => other.addresses.includes(ip));
}
