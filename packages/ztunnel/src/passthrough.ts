/**
 * Plaintext that comes in on 15006 (ztunnel contract 5B.2): the same policies as for tunnels, with no identity, and then straight to
 * the application.
 */
import type { Socket } from "node:net";
import { pipe, refuse, remoteEnd, socketEnd } from "@fairway/hbone";
import { type ConnectionFacts, formatSocketAddress, type SocketAddress, workloadIdentity } from "@fairway/model";
import { MeshError } from "@fairway/runtime";
import { appDial } from "./app-dial.ts";
import type { ConnectionRecord } from "./connection-record.ts";
import type { Admission } from "./connections.ts";
import { ztunnelError } from "./failure.ts";
import { flowing } from "./flowing.ts";
import { watchHalfClosed } from "./half-closed.ts";
import type { LocalWorkload } from "./local-workload.ts";
import { ownPorts, type PodScope } from "./pod-scope.ts";
import { denial } from "./policy-log.ts";
import { ConnectionReport, reportRefused } from "./telemetry.ts";

export class Passthrough {
  readonly #scope: PodScope;
  readonly #mayKeepSource: () => boolean;
  readonly #ownPorts: ReadonlySet<number>;
  #pending = 0;

  constructor(scope: PodScope, options: { mayKeepSource: () => boolean }) {
    this.#scope = scope;
    this.#mayKeepSource = options.mayKeepSource;
    this.#ownPorts = ownPorts(scope.config);
  }

  /** Takes a captured socket: paused, half-open allowed. Never throws. */
  readonly accept = (socket: Socket): void => {
    const { metrics, tasks, config } = this.#scope;
    if (this.#pending >= config.maxPendingConnections) {
      metrics.overloads.inc({ bound: "pending-plaintext" });
      refuse(socket);
      return;
    }
    tasks.run("plaintext connection", () => this.#serve(socket));
  };

  async #serve(socket: Socket): Promise<void> {
    const { network, local, tasks, clock, connections } = this.#scope;
    const startedAt = clock.monotonic();
    using _begun = connections.begin();
    const source = remoteEnd(socket);
    let destination: SocketAddress | undefined;
    let workload: LocalWorkload;
    this.#pending++;
    try {
      const wanted = network.originalDestination(socket);
      destination = socketEnd(wanted.ip, wanted.port);
      if (source === undefined || destination === undefined) return refuse(socket);
      if (this.#ownPorts.has(destination.port)) {
        throw ztunnelError("ZTUNNEL_ROUTE_REFUSED", `attempted recursive call to ourselves on port ${destination.port}`);
      }
      workload = await local.fetch({ signal: tasks.signal });
    } catch (thrown) {
      reportRefused(this.#scope, { source, destination, direction: "inbound", error: thrown });
      return refuse(socket);
    } finally {
      this.#pending--;
    }
    await this.#decideAndCarry(socket, { source, destination, local: workload, startedAt });
  }

  async #decideAndCarry(socket: Socket, ends: { source: SocketAddress; destination: SocketAddress; local: LocalWorkload; startedAt: number }): Promise<void> {
    const { connections, clock, config } = this.#scope;
    const { source, destination, local, startedAt } = ends;
    const facts: ConnectionFacts = { source, destination, identity: undefined };
    const addresses = { src: formatSocketAddress(source), actualDst: formatSocketAddress(destination) };
    let admission: Admission;
    let record: ConnectionRecord;
    try {
      record = await this.#recordOf(ends);
      admission = await connections.admit(local.workload, facts, () => ({ ...addresses, originalDst: addresses.actualDst, protocol: "TCP" }));
    } catch (thrown) {
      reportRefused(this.#scope, { source, destination, direction: "inbound", error: thrown });
      return refuse(socket);
    }
    const report = new ConnectionReport(this.#scope, record, startedAt);
    if (!admission.allowed) {
      refuse(socket);
      report.close(denial(admission.verdict, { source: undefined, destination: local.identity }));
      return;
    }
    using connection = admission.connection;
    this.#pending++;
    let app: Socket;
    try {
      const dial = { to: destination, source, loopback: false, mayKeepSource: this.#mayKeepSource(), signal: connection.signal };
      app = await appDial(this.#scope, dial);
    } catch (thrown) {
      refuse(socket);
      report.close(MeshError.from(thrown, "ZTUNNEL_ROUTE_REFUSED"));
      return;
    } finally {
      this.#pending--;
    }
    using _watch = watchHalfClosed(socket, {
      clock,
      afterMs: config.halfClosedMs,
      moved: () => report.moved,
      expire: () => connection.close(ztunnelError("ZTUNNEL_HALF_CLOSED", `half-closed and silent for ${config.halfClosedMs} ms`)),
    });
    const outcome = await pipe(flowing(socket), flowing(app), { signal: connection.signal, onBytes: (sent, received) => report.bytes(sent, received) });
    report.close(outcome.error);
  }

  /** Who the source is likely to be is said by its address alone: for workload labels, never as an identity. */
  async #recordOf({ source, destination, local }: { source: SocketAddress; destination: SocketAddress; local: LocalWorkload }): Promise<ConnectionRecord> {
    const { mesh, config, tasks } = this.#scope;
    const from = await mesh.decide((snapshot) => snapshot.workloadByAddress(config.network, source.ip), { signal: tasks.signal, labels: true });
    return {
      direction: "inbound",
      source,
      destination: formatSocketAddress(destination),
      authority: undefined,
      from: { workload: from, identity: undefined, baggage: undefined },
      to: { workload: local.workload, identity: workloadIdentity(local.workload), baggage: undefined },
      service: undefined,
      mutualTls: false,
    };
  }
}
