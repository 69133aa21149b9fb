/**
 * Tunnels that come in on 15008: prove the peer, then for each CONNECT decide whose it is, accept, and serve HTTP or copy bytes. What can
 * still be said when it fails: before the CONNECT is understood a log line; until the 200 an HTTP status; after it an HTTP answer inside.
 */
import { createServer, type Server, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import {
  type ConnectExchange,
  defaultServerSettings,
  localEnd,
  parseAuthority,
  parseForwarded,
  refuse,
  remoteEnd,
  type ServerTunnel,
  type TunnelEngine,
} from "@fairway/hbone";
import { formatSocketAddress, type IpAddress, type SocketAddress, type SpiffeId, type WaypointConfig } from "@fairway/model";
import type { CertificateSource, MeshTls } from "@fairway/pki";
import { type Clock, errorCode, type TaskGroup, type Watch } from "@fairway/runtime";
import { type Destination, destinationOf } from "./destination.ts";
import type { Downstream } from "./exchange.ts";
import { waypointError } from "./failure.ts";
import type { HttpVersion } from "./http-connection.ts";
import type { HttpService } from "./http-service.ts";
import type { TcpService } from "./tcp.ts";
import type { ConnectionTelemetry } from "./telemetry.ts";
import { ownCertificate } from "./tunnels.ts";

export interface Detection {
  readonly protocol: HttpVersion | "tcp";
  /** Everything from the first byte on. */
  readonly transport: Duplex;
}

export interface ListenerParts {
  readonly engine: TunnelEngine;
  readonly tls: MeshTls;
  readonly certificates: Pick<CertificateSource, "fetch">;
  readonly identity: SpiffeId;
  readonly config: Watch<WaypointConfig>;
  /** Nothing is served before all of it is known. */
  readonly synced: Watch<boolean>;
  readonly http: HttpService;
  readonly tcp: TcpService;
  /** Tells HTTP from other bytes. Throws what kept the first bytes away. */
  readonly detect: (transport: Duplex, expectHttp: boolean, options: { signal: AbortSignal }) => Promise<Detection>;
  readonly telemetry: ConnectionTelemetry;
  readonly tasks: TaskGroup;
  readonly clock: Clock;
  /** Whose word about the client's address is taken: other waypoints and gateways. */
  readonly trustedGateways: ReadonlySet<SpiffeId>;
  /** Of this pod: what a request may not be sent back to. */
  readonly ownAddresses: ReadonlySet<IpAddress>;
  readonly baggage: () => string | undefined;
  readonly maxPendingHandshakes: number;
  readonly maxTunnels: number;
  readonly onOverload: (bound: "pending-handshakes" | "tunnels") => void;
}

/** One proven tunnel. */
interface Peer {
  readonly address: SocketAddress;
  readonly local: SocketAddress;
  readonly identity: SpiffeId;
}

export class Listener implements AsyncDisposable {
  readonly #parts: ListenerParts;
  readonly #servers: Server[] = [];
  readonly #tunnels = new Set<ServerTunnel>();
  /** Oldest first. */
  readonly #handshakes = new Set<Socket>();
  #draining = false;

  constructor(parts: ListenerParts) {
    this.#parts = parts;
  }

  /** Listens; throws WAYPOINT_LISTEN_FAILED. Several threads may share the port. */
  async listen({ host, port, reusePort }: { host: string; port: number; reusePort: boolean }): Promise<number> {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: false, noDelay: true }, (socket) => this.#accept(socket));
    await new Promise<void>((resolve, reject) => {
      const onError = (cause: Error): void =>
        reject(waypointError("WAYPOINT_LISTEN_FAILED", `cannot listen on ${host}:${port}; is another process using the port?`, { cause }));
      server.once("error", onError);
      server.listen({ host, port, reusePort }, () => {
        server.off("error", onError);
        // A failed accept (no descriptors left) concerns one client, not the listener.
        server.on("error", () => undefined);
        resolve();
      });
    });
    this.#servers.push(server);
    const address = server.address();
    return typeof address === "object" && address !== null ? address.port : port;
  }

  get tunnels(): number {
    return this.#tunnels.size;
  }

  /** No new connections; GOAWAY to every peer; open streams go on. */
  drain(): void {
    this.#draining = true;
    for (const server of this.#servers) server.close();
    for (const tunnel of this.#tunnels) tunnel.drain();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.drain();
    const reason = waypointError("WAYPOINT_STOPPED", "this waypoint is shutting down");
    for (const socket of this.#handshakes) refuse(socket);
    for (const tunnel of [...this.#tunnels]) tunnel.destroy(reason);
  }

  /** Never throws. When too many handshakes are open the oldest gives way: an honest one is over in milliseconds. */
  #accept(socket: Socket): void {
    const { maxPendingHandshakes, maxTunnels, onOverload, tasks } = this.#parts;
    socket.on("error", () => undefined);
    if (this.#tunnels.size >= maxTunnels) {
      onOverload("tunnels");
      refuse(socket);
      return;
    }
    if (this.#handshakes.size >= maxPendingHandshakes) {
      onOverload("pending-handshakes");
      for (const oldest of this.#handshakes) {
        this.#handshakes.delete(oldest);
        refuse(oldest);
        break;
      }
    }
    this.#handshakes.add(socket);
    tasks.run("tunnel", () => this.#serveTunnel(socket));
  }

  async #serveTunnel(socket: Socket): Promise<void> {
    const { engine, tasks, tls, telemetry } = this.#parts;
    const address = remoteEnd(socket);
    const local = localEnd(socket);
    let proven: Awaited<ReturnType<MeshTls["accept"]>>;
    try {
      if (address === undefined || local === undefined) return refuse(socket);
      const certificate = await ownCertificate(this.#parts, tasks.signal);
      proven = await tls.accept(socket, certificate, { signal: tasks.signal });
    } catch (thrown) {
      telemetry.refused({ source: address, authority: undefined, error: thrown });
      socket.destroy();
      return;
    } finally {
      this.#handshakes.delete(socket);
    }
    const peer: Peer = { address, local, identity: proven.peer };
    const tunnel = engine.serve(proven.socket, defaultServerSettings, (exchange) => tasks.run("stream", () => this.#serveStream(exchange, peer)));
    this.#tunnels.add(tunnel);
    if (this.#draining) tunnel.drain();
    if (tasks.signal.aborted) tunnel.destroy();
    await tunnel.closed;
    this.#tunnels.delete(tunnel);
  }

  async #serveStream(exchange: ConnectExchange, peer: Peer): Promise<void> {
    const { telemetry } = this.#parts;
    const refused = (status: 400 | 503, error: Error): void => {
      exchange.reject(status);
      telemetry.refused({ source: peer.address, authority: exchange.request.authority, error });
    };
    const found = this.#destinationOf(exchange, peer);
    switch (found.kind) {
      case "not-bound":
        return refused(400, waypointError("WAYPOINT_NOT_BOUND", found.message));
      case "not-programmed":
        return refused(503, waypointError("WAYPOINT_NOT_PROGRAMMED", found.message));
      case "served":
        return this.#serveDownstream(exchange, {
          identity: peer.identity,
          source: this.#sourceOf(exchange, peer),
          destination: found.address,
          target: found.target,
          port: found.port,
          baggage: exchange.request.baggage,
        });
    }
  }

  #destinationOf({ request }: ConnectExchange, peer: Peer): Destination {
    const { config, synced, identity, ownAddresses } = this.#parts;
    if (!synced.current) return { kind: "not-programmed", message: "this waypoint does not know its configuration yet; is the control plane reachable?" };
    const authority = parseAuthority(request.authority);
    if (authority === undefined) return { kind: "not-bound", message: "the authority is no address or name with a port" };
    // What we send ourselves comes back only when two waypoints, or this one twice, stand in each other's way.
    const toSelf =
      authority.kind === "address" && (ownAddresses.has(authority.address.ip) || formatSocketAddress(authority.address) === formatSocketAddress(peer.local));
    if (peer.identity === identity || toSelf) return { kind: "not-bound", message: "the request came back to the waypoint that sent it: a loop" };
    return destinationOf(config.current, authority);
  }

  /** A ztunnel comes from its pod's own address. For a gateway's client there is only the gateway's word, which is taken from those we trust. */
  #sourceOf({ request }: ConnectExchange, { address, identity }: Peer): SocketAddress {
    return this.#parts.trustedGateways.has(identity) ? (parseForwarded(request.forwarded).client ?? address) : address;
  }

  async #serveDownstream(exchange: ConnectExchange, downstream: Downstream): Promise<void> {
    const { http, tcp, detect, baggage, telemetry, tasks } = this.#parts;
    const { protocol } = downstream.port;
    if (protocol === "tcp") {
      const signal = AbortSignal.any([tasks.signal, exchange.cancelled]);
      const opened = await tcp.open(downstream, { signal }).catch((thrown: unknown) => {
        exchange.reject(errorCode(thrown) === "WAYPOINT_POLICY_DENIED" ? 401 : 503);
        return undefined;
      });
      await opened?.carry(exchange.accept({ baggage: baggage() }).duplex());
      return;
    }
    const stream = exchange.accept({ baggage: baggage() }).duplex();
    // Whoever reads the stream sees its end; until somebody does, a reset must not become an uncaught exception.
    stream.on("error", () => undefined);
    let detected: Detection;
    try {
      detected = await detect(stream, protocol === "http", { signal: tasks.signal });
    } catch (thrown) {
      telemetry.refused({ source: downstream.source, authority: exchange.request.authority, error: thrown });
      stream.destroy();
      return;
    }
    if (detected.protocol !== "tcp") return http.serve(detected.transport, detected.protocol, downstream);
    const opened = await tcp.open(downstream, { signal: tasks.signal }).catch(() => undefined);
    if (opened === undefined) detected.transport.destroy();
    else await opened.carry(detected.transport);
  }
}
