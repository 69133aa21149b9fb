/**
 * Tunnels that come in on 15008 (ztunnel contract 5B.1): prove the peer, then for each CONNECT decide, dial the application, answer, copy.
 * Each stream passes three phases, by what can still be said when it fails:
 * 1. nothing is known yet: an HTTP status and a minimal log line;
 * 2. both ends are known: an HTTP status, the full log line, and metrics with the reason;
 * 3. after the 200: only a reset towards the peer; log and metrics as in 2.
 */
import type { Socket } from "node:net";
import { type ConnectExchange, defaultServerSettings, localEnd, parseBaggage, parseForwarded, refuse, remoteEnd, type ServerTunnel } from "@fairway/hbone";
import {
  type ConnectionFacts,
  formatSocketAddress,
  type InboundRoute,
  resolveInbound,
  type Snapshot,
  type SocketAddress,
  type SpiffeId,
  tryParseSocketAddress,
  workloadIdentity,
} from "@fairway/model";
import { MeshError } from "@fairway/runtime";
import { appDial } from "./app-dial.ts";
import type { ConnectionRecord, End } from "./connection-record.ts";
import type { Admission, LiveConnection } from "./connections.ts";
import { flagOf, ztunnelError } from "./failure.ts";
import { flowing } from "./flowing.ts";
import { watchHalfClosed } from "./half-closed.ts";
import type { LocalWorkload } from "./local-workload.ts";
import { resolveContext, type TunnelScope } from "./pod-scope.ts";
import { denial } from "./policy-log.ts";
import { proxyHeader } from "./proxy-header.ts";
import { closedWith } from "./revocation.ts";
import { ConnectionReport, reportRefused } from "./telemetry.ts";
import { ownCertificate } from "./tunnels.ts";

export interface InboundOptions {
  /** The kernel lets dialled sockets keep a foreign source address. Known once the listener is there. */
  readonly mayKeepSource: () => boolean;
}

/** One proven tunnel. */
interface Peer {
  readonly address: SocketAddress;
  /** The pod's own address that the peer came to. */
  readonly local: SocketAddress;
  readonly identity: SpiffeId;
  /** Aborts when the peer is revoked, before its tunnel ends. */
  revoked: AbortSignal | undefined;
}

type AcceptedRoute = InboundRoute & { kind: "accept" };

/** One CONNECT that leads somewhere. */
interface InboundStream {
  readonly peer: Peer;
  readonly local: LocalWorkload;
  readonly route: AcceptedRoute;
  readonly from: End;
  readonly startedAt: number;
}

export class Inbound {
  readonly #scope: TunnelScope;
  readonly #options: InboundOptions;
  readonly #tunnels = new Set<ServerTunnel>();
  /** Oldest first. */
  readonly #handshakes = new Set<Socket>();
  #draining = false;

  constructor(scope: TunnelScope, options: InboundOptions) {
    this.#scope = scope;
    this.#options = options;
  }

  /**
   * Takes a socket of 15008. Never throws. When too many handshakes are open the oldest gives way: an honest one is over in
   * milliseconds, so those who only hold places lose theirs and never keep others out.
   */
  readonly accept = (socket: Socket): void => {
    const { metrics, tasks, config } = this.#scope;
    if (this.#handshakes.size >= config.maxPendingHandshakes) {
      metrics.overloads.inc({ bound: "pending-handshakes" });
      for (const oldest of this.#handshakes) {
        this.#handshakes.delete(oldest);
        refuse(oldest);
        break;
      }
    }
    this.#handshakes.add(socket);
    tasks.run("inbound tunnel", () => this.#serveTunnel(socket));
  };

  /** GOAWAY to every peer; open streams go on. */
  drain(): void {
    this.#draining = true;
    for (const tunnel of this.#tunnels) tunnel.drain();
  }

  /** Ends every tunnel now. */
  destroy(reason: Error): void {
    this.#draining = true;
    for (const tunnel of [...this.#tunnels]) tunnel.destroy(reason);
  }

  async #serveTunnel(socket: Socket): Promise<void> {
    const { engine, idleTunnels, config, tasks, connections, revocation } = this.#scope;
    // A tunnel that drains ends by itself with its last stream.
    using _begun = connections.begin();
    const address = remoteEnd(socket);
    const local = localEnd(socket);
    let proven: Awaited<ReturnType<TunnelScope["tls"]["accept"]>>;
    try {
      // The peer is gone already: there is nobody to answer.
      if (address === undefined || local === undefined) return refuse(socket);
      proven = await this.#prove(socket);
    } catch (thrown) {
      revocation?.refused("destination", thrown);
      reportRefused(this.#scope, { source: address, destination: local, direction: "inbound", error: thrown });
      socket.destroy();
      return;
    } finally {
      this.#handshakes.delete(socket);
    }
    const settings = { ...defaultServerSettings, streamWindow: config.streamWindow, connectionWindow: config.connectionWindow, frameSize: config.frameSize };
    const peer: Peer = { address, local, identity: proven.peer, revoked: undefined };
    using use = idleTunnels.follow(proven.peer, { drain: () => tunnel.drain(), destroy: () => tunnel.destroy() });
    const onConnect = (exchange: ConnectExchange): void => {
      use.began();
      tasks.run("inbound stream", () => this.#serveStream(exchange, peer).finally(use.ended));
    };
    const tunnel = engine.serve(proven.socket, settings, onConnect, (error) =>
      reportRefused(this.#scope, { source: address, destination: local, direction: "inbound", error }),
    );
    this.#tunnels.add(tunnel);
    peer.revoked = revocation?.follow(proven, "destination", (reason) => tunnel.destroy(reason));
    // Drained or stopped while the handshake ran.
    if (this.#draining) tunnel.drain();
    if (tasks.signal.aborted) tunnel.destroy();
    await tunnel.closed;
    this.#tunnels.delete(tunnel);
  }

  async #prove(socket: Socket): ReturnType<TunnelScope["tls"]["accept"]> {
    const { local, tls, tasks } = this.#scope;
    const { identity } = await local.fetch({ signal: tasks.signal });
    const certificate = await ownCertificate(this.#scope, identity, tasks.signal);
    return tls.accept(socket, certificate, { signal: tasks.signal });
  }

  async #serveStream(exchange: ConnectExchange, peer: Peer): Promise<void> {
    const { local: localSource, mesh, tasks, clock } = this.#scope;
    const { signal } = tasks;
    const startedAt = clock.monotonic();
    const minimal = (status: 400 | 503, error: unknown): void => {
      exchange.reject(status);
      reportRefused(this.#scope, { source: peer.address, destination: peer.local, direction: "inbound", error });
    };
    // Phase 1: whose stream is this, and where to?
    const { authority, forwarded } = exchange.request;
    const request = { local: peer.local, authority, forwardedHost: parseForwarded(forwarded).host };
    let local: LocalWorkload;
    let decided: { route: InboundRoute; from: End };
    try {
      local = await localSource.fetch({ signal });
      const { workload } = local;
      const context = resolveContext(this.#scope);
      // Whoever asks for the pod's own address gets it; all that is looked up then is what to call the two ends.
      const labels = tryParseSocketAddress(authority)?.ip === peer.local.ip;
      decided = await mesh.decide(
        (snapshot) => ({ route: resolveInbound(context(snapshot), workload, request), from: this.#sourceOf(snapshot, exchange, peer) }),
        { signal, labels },
      );
    } catch (thrown) {
      return minimal(503, thrown);
    }
    const { route, from } = decided;
    if (route.kind === "reject") return minimal(route.status, ztunnelError("ZTUNNEL_ROUTE_REFUSED", route.message));
    await this.#decideAndDial(exchange, { peer, local, route, from, startedAt });
  }

  /** Phase 2: may it be, and does the application answer? */
  async #decideAndDial(exchange: ConnectExchange, stream: InboundStream): Promise<void> {
    const { peer, local, route, startedAt } = stream;
    const { connections } = this.#scope;
    const record = this.#recordOf(exchange, stream);
    const facts: ConnectionFacts = { source: peer.address, destination: route.to, identity: peer.identity };
    let admission: Admission;
    try {
      admission = await connections.admit(local.workload, facts, () => ({
        src: formatSocketAddress(peer.address),
        originalDst: parseForwarded(exchange.request.forwarded).host,
        actualDst: formatSocketAddress(route.to),
        protocol: "HBONE",
      }));
    } catch (thrown) {
      // Contract 1.6: whoever cannot be tracked and judged is refused like one who was judged.
      exchange.reject(401);
      new ConnectionReport(this.#scope, record, startedAt).close(MeshError.from(thrown, "ZTUNNEL_POLICY_CHANGED"));
      return;
    }
    const report = new ConnectionReport(this.#scope, record, startedAt);
    if (!admission.allowed) {
      exchange.reject(401);
      report.close(denial(admission.verdict, { source: peer.identity, destination: local.identity }));
      return;
    }
    using connection = admission.connection;
    using _revocation = closedWith(connection, peer.revoked);
    const onCancelled = (): void => connection.close(ztunnelError("ZTUNNEL_CLIENT_GAVE_UP", "the client reset the stream before it was answered"));
    exchange.cancelled.addEventListener("abort", onCancelled, { once: true });
    if (exchange.cancelled.aborted) onCancelled();
    let socket: Socket;
    try {
      socket = await appDial(this.#scope, {
        to: route.to,
        source: peer.address,
        loopback: route.loopback,
        mayKeepSource: this.#options.mayKeepSource(),
        signal: connection.signal,
      });
    } catch (thrown) {
      const error = MeshError.from(thrown, "ZTUNNEL_ROUTE_REFUSED");
      exchange.reject(flagOf(error) === "DENY" ? 401 : 503);
      report.close(error);
      return;
    } finally {
      exchange.cancelled.removeEventListener("abort", onCancelled);
    }
    await this.#carry(exchange, socket, { ...stream, connection, report });
  }

  /** Phase 3: the 200, and bytes. */
  async #carry(exchange: ConnectExchange, socket: Socket, stream: InboundStream & { connection: LiveConnection; report: ConnectionReport }): Promise<void> {
    const { config, clock } = this.#scope;
    const { peer, local, route, connection, report } = stream;
    using _watch = watchHalfClosed(socket, {
      clock,
      afterMs: config.halfClosedMs,
      moved: () => report.moved,
      expire: () => connection.close(ztunnelError("ZTUNNEL_HALF_CLOSED", `half-closed and silent for ${config.halfClosedMs} ms`)),
    });
    if (route.proxyHeader !== undefined)
      socket.write(proxyHeader({ source: peer.address, destination: route.proxyHeader.destination, identity: peer.identity }));
    const tunnelStream = exchange.accept({ baggage: config.baggage ? local.baggage : undefined });
    const outcome = await tunnelStream.pipe(flowing(socket), { signal: connection.signal, onBytes: (sent, received) => report.bytes(received, sent) });
    report.close(outcome.error);
  }

  #recordOf(exchange: ConnectExchange, { peer, local, route, from }: InboundStream): ConnectionRecord {
    return {
      direction: "inbound",
      source: peer.address,
      destination: formatSocketAddress(peer.local),
      authority: exchange.request.authority,
      from,
      to: { workload: local.workload, identity: local.identity, baggage: undefined },
      service: route.service,
      mutualTls: true,
    };
  }

  /** By address, unless the client is of another network; then, and for what the mesh does not know, by what it says of itself. */
  #sourceOf(snapshot: Snapshot, exchange: ConnectExchange, { address, identity }: Peer): End {
    const { config } = this.#scope;
    const { forwardedNetwork, baggage } = exchange.request;
    const elsewhere = forwardedNetwork !== undefined && forwardedNetwork.toLowerCase() !== config.network.toLowerCase();
    const known = elsewhere ? undefined : snapshot.workloadByAddress(config.network, address.ip);
    // An address says who is likely to be there; the certificate says who is. Where they differ the address is a gateway's or stale.
    const workload = known !== undefined && workloadIdentity(known) === identity ? known : undefined;
    return { workload, identity, baggage: config.baggage ? parseBaggage(baggage) : undefined };
  }
}
