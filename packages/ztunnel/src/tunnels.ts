/**
 * The tunnels of one pod towards others: pooled by who is dialled and what it must prove, dialled from inside the pod's network with the
 * pod's certificate. A workload that left the mesh, or changed its address, loses its tunnels, so that whoever gets its address next
 * never receives its traffic (architecture 7.6).
 */
import type { Duplex } from "node:stream";
import {
  type ClientTunnel,
  type ConnectRequest,
  defaultClientSettings,
  type HboneMetrics,
  type OpenedStream,
  type TunnelEngine,
  TunnelPool,
  type TunnelSettings,
} from "@fairway/hbone";
import { formatSocketAddress, type SocketAddress, type SpiffeId, type Workload, type WorkloadUid } from "@fairway/model";
import type { Proven, WorkloadCertificate } from "@fairway/pki";
import { errorCode, messageOf } from "@fairway/runtime";
import type { ProxyConfig } from "./config.ts";
import { ztunnelError } from "./failure.ts";
import { dialTimeoutMs, type TunnelScope } from "./pod-scope.ts";

/** A stream, and what ends it besides its two ends. */
export interface FollowedStream extends OpenedStream {
  /** Aborts when the tunnel's peer is revoked, before the tunnel ends. */
  readonly revoked: AbortSignal | undefined;
}

export interface TunnelTarget {
  readonly address: SocketAddress;
  readonly source: SpiffeId;
  /** The peer must prove one of these. */
  readonly expected: readonly SpiffeId[];
  readonly workload: Workload | undefined;
}

/** Twice the tunnels that a pool keeps: those under way count too. */
const maxFollowed = 1_000;

export class Tunnels implements AsyncDisposable {
  readonly #scope: TunnelScope;
  readonly #pool: TunnelPool;
  readonly #subscription: Disposable;
  /** Workloads that tunnels may lead to, as they were when dialled; those asked for longest ago first. */
  readonly #dialled = new Map<WorkloadUid, Workload>();
  /** By transport, until it is a tunnel; then by tunnel. */
  readonly #revoked = new WeakMap<Duplex | ClientTunnel, AbortSignal>();

  constructor(scope: TunnelScope, metrics: HboneMetrics) {
    const { config } = scope;
    this.#scope = scope;
    this.#pool = new TunnelPool({
      engine: this.#remembering(namingFailures(scope.engine)),
      settings: clientSettings(config),
      clock: scope.clock,
      idleMs: config.tunnelIdleMs,
      metrics,
    });
    this.#subscription = scope.mesh.changes.subscribe(({ workloadsChanged }) => {
      if (workloadsChanged && this.#dialled.size > 0) scope.tasks.run("following the mesh", () => this.#forgetTheGone());
    });
  }

  /**
   * Sends a CONNECT. Throws ZTUNNEL_IDENTITY (no certificate of our own), ZTUNNEL_HBONE_TIMEOUT, LINUX_DIAL_*, PKI_* (the peer proved
   * nothing that is expected), ZTUNNEL_HTTP2_HANDSHAKE, HBONE_REFUSED, HBONE_TUNNEL_LOST, or the signal's reason.
   */
  async open({ address, source, expected, workload }: TunnelTarget, request: ConnectRequest, { signal }: { signal: AbortSignal }): Promise<FollowedStream> {
    if (workload !== undefined) this.#follow(workload);
    const key = { owner: this.#scope.owner, source, expected, workload: workload?.uid, address: formatSocketAddress(address) };
    const opened = await this.#pool.open(key, request, (dialing) => this.#dial({ address, source, expected, workload }, dialing), { signal });
    return { ...opened, revoked: this.#revoked.get(opened.tunnel) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#subscription[Symbol.dispose]();
    await this.#pool[Symbol.asyncDispose]();
  }

  async #dial({ address, source, expected }: TunnelTarget, signal: AbortSignal): Promise<Duplex> {
    const { network, config, tls, revocation } = this.#scope;
    // Before the connect: without a certificate nothing may leave, and the peer must not be bothered.
    const certificate = await ownCertificate(this.#scope, source, signal);
    const hop = formatSocketAddress(address);
    const { socket } = await network
      .dial({ host: address.ip, port: address.port, mark: config.mark, timeoutMs: dialTimeoutMs, signal, keepalive: config.keepalive })
      .catch((thrown: unknown) => {
        if (errorCode(thrown) !== "LINUX_DIAL_TIMEOUT") throw thrown;
        throw ztunnelError("ZTUNNEL_HBONE_TIMEOUT", `connection to ${hop} timed out; does a NetworkPolicy block HBONE port ${address.port}?`, thrown);
      });
    let proven: Proven;
    try {
      proven = await tls.connect(socket, certificate, expected, { signal });
    } catch (thrown) {
      revocation?.refused("source", thrown);
      throw thrown;
    }
    if (revocation !== undefined)
      this.#revoked.set(
        proven.socket,
        revocation.follow(proven, "source", () => proven.socket.destroy()),
      );
    return proven.socket;
  }

  /** The pool knows tunnels, the handshake knows sockets: this is where the one becomes the other. */
  #remembering(engine: TunnelEngine): TunnelEngine {
    return {
      ...engine,
      connect: async (transport, settings, options) => {
        const tunnel = await engine.connect(transport, settings, options);
        const revoked = this.#revoked.get(transport);
        if (revoked !== undefined) this.#revoked.set(tunnel, revoked);
        return tunnel;
      },
    };
  }

  /** The pool lets go of the tunnels asked for longest ago, of fewer workloads than are followed here. */
  #follow(workload: Workload): void {
    this.#dialled.delete(workload.uid);
    this.#dialled.set(workload.uid, workload);
    const oldest = this.#dialled.size > maxFollowed ? this.#dialled.keys().next() : undefined;
    if (oldest?.done === false) this.#dialled.delete(oldest.value);
  }

  async #forgetTheGone(): Promise<void> {
    const { mesh, tasks } = this.#scope;
    const present = await mesh.decide((snapshot) => [...this.#dialled].map(([uid, dialled]) => ({ uid, dialled, now: snapshot.workload(uid) })), {
      signal: tasks.signal,
    });
    for (const { uid, dialled, now } of present) {
      if (now === dialled || this.#dialled.get(uid) !== dialled) continue;
      if (now !== undefined && sameAddresses(now, dialled)) {
        this.#dialled.set(uid, now);
        continue;
      }
      this.#dialled.delete(uid);
      this.#pool.evictWorkload(uid);
    }
  }
}

/** The certificate of a local identity. Throws ZTUNNEL_IDENTITY: without one nothing is sent and nothing accepted. */
export async function ownCertificate({ certificates }: TunnelScope, identity: SpiffeId, signal: AbortSignal): Promise<WorkloadCertificate> {
  try {
    return await certificates.fetch(identity, { signal, priority: "realtime" });
  } catch (cause) {
    if (signal.aborted) throw signal.reason;
    throw ztunnelError("ZTUNNEL_IDENTITY", `there is no certificate for ${identity}: ${messageOf(cause)}`, cause);
  }
}

function sameAddresses(one: Workload, other: Workload): boolean {
  return one.addresses.length === other.addresses.length && one.addresses.every((ip) => other.addresses.includes(ip));
}

/** Of every tunnel that is opened here (contract 1.7). */
export function clientSettings(config: ProxyConfig): TunnelSettings {
  return {
    ...defaultClientSettings,
    streamWindow: config.streamWindow,
    connectionWindow: config.connectionWindow,
    frameSize: config.frameSize,
    maxStreams: config.maxStreamsPerTunnel,
  };
}

/** Gives a failure of the HTTP/2 start a name of its own, apart from a tunnel lost later. */
export function namingFailures(engine: TunnelEngine): TunnelEngine {
  return {
    ...engine,
    connect: async (transport, settings, options) => {
      try {
        return await engine.connect(transport, settings, options);
      } catch (cause) {
        if (options.signal.aborted) throw options.signal.reason;
        throw ztunnelError("ZTUNNEL_HTTP2_HANDSHAKE", `the peer did not start HTTP/2: ${messageOf(cause)}`, cause);
      }
    },
  };
}
