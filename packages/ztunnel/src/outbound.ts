/**
 * Captured connections on their way out (ztunnel contract 5): who asks, where to, by which way, and then bytes.
 * Fails closed: no workload, no certificate, no proof of the peer means no connection; nothing meant for a tunnel ever leaves in plaintext.
 */
import type { Socket } from "node:net";
import {
  type ConnectRequest,
  formatForwarded,
  makeTraceparent,
  type PipeOutcome,
  parseAuthority,
  parseBaggage,
  pipe,
  refuse,
  remoteEnd,
  socketEnd,
} from "@fairway/hbone";
import {
  formatSocketAddress,
  type OutboundRoute,
  resolveOutbound,
  type SocketAddress,
  type SpiffeId,
  type WorkloadUid,
  workloadIdentity,
} from "@fairway/model";
import { isCaptureProbe } from "@fairway/protocol";
import { assertNever, errorCode, MeshError } from "@fairway/runtime";
import type { ConnectionRecord } from "./connection-record.ts";
import type { ConnectionSummary, LiveConnection } from "./connections.ts";
import { ztunnelError } from "./failure.ts";
import { flowing } from "./flowing.ts";
import { watchHalfClosed } from "./half-closed.ts";
import { openInner, requireFarIdentities } from "./inner-tunnel.ts";
import type { LocalWorkload } from "./local-workload.ts";
import { resolveNextHop } from "./next-hop.ts";
import { dialTimeoutMs, establishTimeoutMs, resolveContext, type TunnelScope } from "./pod-scope.ts";
import { closedWith } from "./revocation.ts";
import { ConnectionReport, reportRefused } from "./telemetry.ts";
import type { Tunnels } from "./tunnels.ts";
import { withoutWorkloads } from "./without-workloads.ts";

/** Endpoints tried for one connection before its first byte (architecture 7.6). */
const maxAttempts = 3;

/** Failures that say nothing about other endpoints: our own certificate, our own end. */
const finalCodes: ReadonlySet<string> = new Set(["ZTUNNEL_IDENTITY", "HBONE_POOL_CLOSED", "ZTUNNEL_NO_FAR_IDENTITIES"]);

type DialledRoute = Exclude<OutboundRoute, { kind: "deny" }>;
type HboneRoute = Extract<OutboundRoute, { kind: "hbone" }>;
type TunnelledRoute = Extract<OutboundRoute, { kind: "hbone" | "double-hbone" }>;

/** The far half of a connection, ready for bytes. */
interface Link {
  readonly record: ConnectionRecord;
  /** Of each tunnel it goes through: aborts when the peer is revoked. */
  readonly revoked: readonly (AbortSignal | undefined)[];
  readonly pipe: (socket: Socket, options: { signal: AbortSignal; onBytes: (sent: number, received: number) => void }) => Promise<PipeOutcome>;
}

/** What one connection is about; the rest of the walk only reads it. */
interface Request {
  readonly source: SocketAddress;
  readonly destination: SocketAddress;
  readonly local: LocalWorkload;
  readonly connection: LiveConnection;
  readonly traceparent: string;
  readonly startedAt: number;
  readonly summary: { actualDst: string; protocol: ConnectionSummary["protocol"] };
}

/** Who wants the connection. */
export interface OutboundClient {
  joined(): void;
  refused(error: Error): void;
}

export class Outbound {
  readonly #scope: TunnelScope;
  readonly #tunnels: Tunnels;
  #pending = 0;

  constructor(scope: TunnelScope, tunnels: Tunnels) {
    this.#scope = scope;
    this.#tunnels = tunnels;
  }

  /** Takes a captured socket: paused, half-open allowed. Never throws. */
  readonly accept = (socket: Socket): void => {
    const { metrics, tasks, config } = this.#scope;
    if (this.#pending >= config.maxPendingConnections) {
      metrics.overloads.inc({ bound: "pending-outbound" });
      refuse(socket);
      return;
    }
    tasks.run("outbound connection", () => this.#serveCaptured(socket));
  };

  async #serveCaptured(socket: Socket): Promise<void> {
    let destination: SocketAddress | undefined;
    try {
      const wanted = this.#scope.network.originalDestination(socket);
      destination = socketEnd(wanted.ip, wanted.port);
    } catch (thrown) {
      reportRefused(this.#scope, { source: remoteEnd(socket), destination, direction: "outbound", error: thrown });
    }
    // The client is gone already; there is nobody to answer and nothing to report.
    if (destination === undefined) return refuse(socket);
    if (isCaptureProbe(destination)) return this.#answerProbe(socket);
    await this.serve(socket, destination, { joined: () => {}, refused: () => refuse(socket) });
  }

  /** Carries a connection to `destination`; `client` hears once how it went, before any byte of the far side. Never throws. */
  async serve(socket: Socket, destination: SocketAddress, client: OutboundClient): Promise<void> {
    const { clock, connections, local, randomBytes } = this.#scope;
    const startedAt = clock.monotonic();
    const source = remoteEnd(socket);
    if (source === undefined) return refuse(socket);
    using _begun = connections.begin();
    this.#pending++;
    try {
      const originalDst = formatSocketAddress(destination);
      const summary = { actualDst: originalDst, protocol: "TCP" as ConnectionSummary["protocol"] };
      using connection = connections.track("outbound", () => ({ src: formatSocketAddress(source), originalDst, ...summary }));
      using deadline = clock.schedule(establishTimeoutMs, () =>
        connection.close(ztunnelError("ZTUNNEL_ROUTE_REFUSED", `no connection to ${originalDst} within ${establishTimeoutMs} ms`)),
      );
      const request: Request = {
        source,
        destination,
        local: await local.fetch({ signal: connection.signal }),
        connection,
        traceparent: makeTraceparent(randomBytes),
        startedAt,
        summary,
      };
      const link = await this.#connect(request);
      if ("failure" in link) return client.refused(link.failure);
      deadline[Symbol.dispose]();
      client.joined();
      this.#pending--;
      try {
        await this.#carry(socket, link, request);
      } finally {
        this.#pending++;
      }
    } catch (thrown) {
      reportRefused(this.#scope, { source, destination, direction: "outbound", error: thrown });
      client.refused(MeshError.from(thrown, "ZTUNNEL_ROUTE_REFUSED"));
    } finally {
      this.#pending--;
    }
  }

  /** The node agent asks whether the pod is captured: a clean end is the answer. Traffic of nobody, so neither metrics nor the access log know it. */
  #answerProbe(socket: Socket): void {
    this.#scope.log.debug("answered the node agent's capture probe");
    // The FIN and then the descriptor: an application that finds this address keeps nothing here.
    socket.destroySoon();
  }

  /**
   * Decides and dials, at most `maxAttempts` times; an endpoint that failed is not chosen again. A failure was reported with all that was
   * known. Throws what failed before a route was known.
   */
  async #connect(request: Request): Promise<Link | { readonly failure: MeshError }> {
    const { mesh, metrics } = this.#scope;
    const failed = new Set<WorkloadUid>();
    let last: { record: ConnectionRecord; error: MeshError } | undefined;
    for (let attempt = 1; attempt <= maxAttempts; attempt++) {
      const context = resolveContext(this.#scope);
      const route = await mesh.decide((snapshot) => resolveOutbound(context(withoutWorkloads(snapshot, failed)), request.local.workload, request.destination), {
        signal: request.connection.signal,
      });
      if (route.kind === "deny") {
        if (last !== undefined) break;
        throw ztunnelError("ZTUNNEL_ROUTE_REFUSED", route.message);
      }
      // A waypoint known by its address is nobody's endpoint: there is no other to try.
      if (route.target.workload !== undefined && failed.has(route.target.workload.uid)) break;
      if (attempt > 1) metrics.retries.inc();
      try {
        return await this.#dial(request, route);
      } catch (thrown) {
        const error = MeshError.from(thrown, "ZTUNNEL_ROUTE_REFUSED");
        last = { record: recordOf(request, route), error };
        const { workload, service } = route.target;
        if (service === undefined || workload === undefined || request.connection.signal.aborted || !worthRetrying(error)) break;
        failed.add(workload.uid);
      }
    }
    if (last === undefined) throw ztunnelError("ZTUNNEL_ROUTE_REFUSED", "no route was tried");
    new ConnectionReport(this.#scope, last.record, request.startedAt).close(last.error);
    return { failure: last.error };
  }

  async #dial(request: Request, route: DialledRoute): Promise<Link> {
    switch (route.kind) {
      case "hbone":
        return this.#dialTunnel(request, route);
      case "tcp":
        return this.#dialPlain(request, route, await this.#resolve(request, route.nextHop));
      case "passthrough":
        return this.#dialPlain(request, route, route.to);
      case "double-hbone":
        return this.#dialAcrossNetworks(request, route);
      default:
        return assertNever(route);
    }
  }

  async #dialTunnel(request: Request, named: HboneRoute): Promise<Link> {
    const { config } = this.#scope;
    const { local, connection } = request;
    const address = await this.#towards(request, named, "HBONE");
    const route = askedAt(named, address);
    const { expected, target } = route;
    const towards = { address, source: local.identity, expected, workload: target.workload };
    const { stream, baggage, revoked } = await this.#tunnels.open(towards, connectTo(request, route), { signal: connection.signal });
    const record = recordOf(request, route, { baggage: config.baggage ? baggage : undefined });
    return { record, revoked: [revoked], pipe: (socket, options) => stream.pipe(flowing(socket), options) };
  }

  /** Contract 1.10: the gateway proves itself in the outer tunnel, the far proxy in the inner one; both are asked for the service by name. */
  async #dialAcrossNetworks(request: Request, route: DialledRoute & { kind: "double-hbone" }): Promise<Link> {
    const { config } = this.#scope;
    const { local, connection } = request;
    requireFarIdentities(route.innerExpected, route.authority);
    const address = await this.#towards(request, route, "DOUBLEHBONE");
    const { workload } = route.target;
    const connect = connectTo(request, route);
    const { signal } = connection;
    const { stream, revoked } = await this.#tunnels.open({ address, source: local.identity, expected: route.expected, workload }, connect, { signal });
    const inner = await openInner(
      this.#scope,
      stream,
      { source: local.identity, expected: route.innerExpected, connect: { ...connect, forwardedNetwork: config.network } },
      { signal },
    );
    const record = recordOf(request, route, { baggage: config.baggage ? inner.baggage : undefined, peer: inner.peer });
    return { record, revoked: [revoked, inner.revoked], pipe: (socket, options) => inner.pipe(flowing(socket), options) };
  }

  /** The address of the next hop, which the connection list shows from here on. */
  async #towards(request: Request, route: TunnelledRoute, protocol: ConnectionSummary["protocol"]): Promise<SocketAddress> {
    const address = await this.#resolve(request, route.nextHop);
    Object.assign(request.summary, { actualDst: formatSocketAddress(address), protocol });
    return address;
  }

  async #dialPlain(request: Request, route: DialledRoute, to: SocketAddress): Promise<Link> {
    const { network, config } = this.#scope;
    const { signal } = request.connection;
    request.summary.actualDst = formatSocketAddress(to);
    request.summary.protocol = "TCP";
    const { socket: far } = await network.dial({
      host: to.ip,
      port: to.port,
      mark: config.mark,
      timeoutMs: dialTimeoutMs,
      signal,
      keepalive: config.keepalive,
    });
    return { record: recordOf(request, route), revoked: [], pipe: (socket, options) => pipe(flowing(socket), flowing(far), options) };
  }

  #resolve({ destination, connection, local }: Request, hop: Parameters<typeof resolveNextHop>[0]): Promise<SocketAddress> {
    const { lookup, random, clock, metrics } = this.#scope;
    if (hop.kind === "hostname") metrics.onDemandNames.count({ ...local, baggage: undefined }, hop.hostname);
    return resolveNextHop(hop, { lookup, random, clock, near: destination.ip, signal: connection.signal });
  }

  async #carry(socket: Socket, link: Link, { connection, startedAt }: Request): Promise<void> {
    const { clock, config } = this.#scope;
    const report = new ConnectionReport(this.#scope, link.record, startedAt);
    using _watch = watchHalfClosed(socket, {
      clock,
      afterMs: config.halfClosedMs,
      moved: () => report.moved,
      expire: () => connection.close(ztunnelError("ZTUNNEL_HALF_CLOSED", `half-closed and silent for ${config.halfClosedMs} ms`)),
    });
    using _revocation = closedWith(connection, ...link.revoked);
    const outcome = await link.pipe(socket, { signal: connection.signal, onBytes: (sent, received) => report.bytes(sent, received) });
    report.close(outcome.error);
  }
}

/** A refusal by policy is an answer, not a failure; and what our own side lacks no other endpoint has. */
function worthRetrying(error: MeshError): boolean {
  if (finalCodes.has(error.code)) return false;
  return !(errorCode(error) === "HBONE_REFUSED" && error.details["status"] === 401);
}

/** An endpoint that is known by name knows itself by its address (contract 5.1, step 10). */
function askedAt(route: HboneRoute, dialled: SocketAddress): HboneRoute {
  const asked = route.nextHop.kind === "hostname" && route.via === "endpoint" ? parseAuthority(route.authority) : undefined;
  return asked?.kind === "hostname" ? { ...route, authority: formatSocketAddress({ ip: dialled.ip, port: asked.port }) } : route;
}

function connectTo({ source, local, traceparent }: Request, { authority, target }: TunnelledRoute): ConnectRequest {
  return { authority, baggage: local.baggage, forwarded: formatForwarded(source, target.service?.hostname), traceparent };
}

/** What the far end said and proved; across networks that is all that is known of it. */
interface Answer {
  readonly baggage?: string | undefined;
  readonly peer?: SpiffeId;
}

function recordOf({ source, local }: Request, route: DialledRoute, { baggage, peer }: Answer = {}): ConnectionRecord {
  const mutualTls = route.kind === "hbone" || route.kind === "double-hbone";
  const { service } = route.target;
  // The gateway is a hop, not the destination.
  const workload = route.kind === "double-hbone" ? undefined : route.target.workload;
  const answered = workload === undefined && baggage !== undefined ? parseBaggage(baggage) : undefined;
  return {
    direction: "outbound",
    source,
    destination: hopText(route),
    authority: mutualTls ? route.authority : undefined,
    from: { workload: local.workload, identity: local.identity, baggage: undefined },
    to: { workload, identity: workload === undefined ? peer : workloadIdentity(workload), baggage: answered },
    service,
    mutualTls,
  };
}

function hopText(route: DialledRoute): string {
  if (route.kind === "passthrough") return formatSocketAddress(route.to);
  return route.nextHop.kind === "address" ? formatSocketAddress(route.nextHop.address) : `${route.nextHop.hostname}:${route.nextHop.port}`;
}
