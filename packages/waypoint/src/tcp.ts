/**
 * Bytes that are not HTTP (waypoint contract row 10): judged by what is known without reading them, sent to one of the port's backends, and
 * copied both ways with each FIN carried over. A connection that a change of policy no longer permits is ended.
 */
import type { Duplex } from "node:stream";
import { pipe } from "@fairway/hbone";
import { authorizeRequest, HeaderFields, pickByWeight, policyForTcp, type RequestFacts, type RequestPolicy, type WaypointConfig } from "@fairway/model";
import { type Clock, MeshError, type Watch } from "@fairway/runtime";
import { destinationNow } from "./destination.ts";
import type { Downstream } from "./exchange.ts";
import { waypointError } from "./failure.ts";
import { denialMessage, deniedDetail } from "./stages/authorize.ts";
import type { ConnectionReport, ConnectionTelemetry } from "./telemetry.ts";
import type { Upstreams } from "./upstreams.ts";

export interface TcpServiceParts {
  readonly config: Watch<WaypointConfig>;
  readonly upstreams: Pick<Upstreams, "open">;
  readonly telemetry: ConnectionTelemetry;
  readonly clock: Clock;
  readonly random: () => number;
  /** Silence after which a connection without a byte in either direction is ended; 0 never does. */
  readonly idleMs: number;
}

/** A connection that may be, with its upstream: ready for bytes. */
export interface OpenedConnection {
  /** Copies until both ends are over. Never rejects. */
  carry(client: Duplex): Promise<void>;
}

export class TcpService {
  readonly #parts: TcpServiceParts;
  readonly #live = new Set<AbortController>();

  constructor(parts: TcpServiceParts) {
    this.#parts = parts;
  }

  /** Connections open now. */
  get active(): number {
    return this.#live.size;
  }

  /**
   * Decides and connects before anything is promised to the client. Throws WAYPOINT_POLICY_DENIED, WAYPOINT_NO_BACKEND, what the upstream
   * threw, or the signal's reason; it was reported then.
   */
  async open(downstream: Downstream, { signal }: { signal: AbortSignal }): Promise<OpenedConnection> {
    const { upstreams, telemetry, random } = this.#parts;
    const report = telemetry.opened(downstream);
    try {
      permit(downstream);
      const backend = pickByWeight(downstream.port.tcpBackends, ({ weight }) => weight, random);
      if (backend === undefined) throw waypointError("WAYPOINT_NO_BACKEND", `port ${downstream.port.port} of ${downstream.target.name} has no backend`);
      report.cluster = backend.cluster;
      const { transport, release } = await upstreams.open({
        cluster: backend.cluster,
        downstream,
        tried: new Set(),
        signal,
        onChosen: (endpoint) => {
          report.upstream = endpoint.address;
          report.workload = endpoint.workload;
        },
      });
      return { carry: (client) => this.#carry(client, transport, { downstream, report, release }) };
    } catch (thrown) {
      report.close(MeshError.from(thrown, "WAYPOINT_INTERNAL"));
      throw thrown;
    }
  }

  /** Ends every connection now. */
  destroy(reason: Error): void {
    for (const controller of this.#live) controller.abort(reason);
  }

  async #carry(client: Duplex, upstream: Duplex, given: { downstream: Downstream; report: ConnectionReport; release: () => void }): Promise<void> {
    const { downstream, report, release } = given;
    const controller = new AbortController();
    this.#live.add(controller);
    using _policy = this.#whilePermitted(downstream, controller);
    using _idle = this.#whileBusy(report, controller);
    const { error } = await pipe(client, upstream, { signal: controller.signal, onBytes: (sent, received) => report.bytes(sent, received) });
    this.#live.delete(controller);
    release();
    report.close(error);
  }

  #whilePermitted(downstream: Downstream, controller: AbortController): Disposable {
    return this.#parts.config.subscribe((config) => {
      try {
        const found = destinationNow(config, downstream.target, downstream.port, downstream.destination);
        // A target that is gone takes nobody new; who is connected may finish, as with a service that loses its waypoint.
        if (found.kind === "served") permit({ ...downstream, target: found.target, port: found.port });
      } catch (thrown) {
        controller.abort(thrown);
      }
    });
  }

  #whileBusy(report: ConnectionReport, controller: AbortController): Disposable {
    const { clock, idleMs } = this.#parts;
    let timer: Disposable | undefined;
    const wait = (): void => {
      const before = report.moved;
      timer = clock.schedule(idleMs, () => {
        if (report.moved !== before) wait();
        else controller.abort(waypointError("WAYPOINT_HALF_CLOSED", `silent for ${idleMs} ms`));
      });
    };
    if (idleMs > 0) wait();
    return { [Symbol.dispose]: () => timer?.[Symbol.dispose]() };
  }
}

/** Throws WAYPOINT_POLICY_DENIED. */
function permit({ identity, source, destination, port }: Downstream): void {
  if (port.policies.length === 0) return;
  const facts: RequestFacts = {
    head: { method: "", scheme: "http", authority: "", path: "", headers: new HeaderFields() },
    identity,
    source,
    remote: source,
    destination,
    serverName: undefined,
    claims: undefined,
  };
  const verdict = authorizeRequest(port.policies.map(tcpForm), facts);
  if (!verdict.allowed) throw waypointError("WAYPOINT_POLICY_DENIED", denialMessage(verdict), { details: { detail: deniedDetail(verdict) } });
}

/** Policies are never mutated, so each is translated once. */
const tcpForms = new WeakMap<RequestPolicy, RequestPolicy>();

function tcpForm(policy: RequestPolicy): RequestPolicy {
  const known = tcpForms.get(policy) ?? policyForTcp(policy);
  tcpForms.set(policy, known);
  return known;
}
