/** One line per connection, with the fields, the order and the words that dashboards and people parse (ztunnel contract 9.2). */
import { formatSocketAddress, type SocketAddress } from "@fairway/model";
import { Bare, type LogFields, type Logger, type LogValue, messageOf } from "@fairway/runtime";
import type { ConnectionOutcome, ConnectionRecord, Direction, End } from "./connection-record.ts";

/** The access log of one process; scope `access`. */
export class AccessLog {
  readonly #log: Logger;

  constructor(log: Logger) {
    this.#log = log.scope("access");
  }

  /** A connection that ended before it was known what it was: only addresses and the reason. */
  refused(refusal: { source: SocketAddress | undefined; destination: SocketAddress | undefined; direction: Direction; error: unknown }): void {
    this.#log.warn("connection failed", {
      "src.addr": bareAddress(refusal.source),
      "dst.addr": bareAddress(refusal.destination),
      direction: refusal.direction,
      error: messageOf(refusal.error),
    });
  }

  opened(record: ConnectionRecord): void {
    if (this.#log.enabled("debug")) this.#log.debug("connection opened", recordFields(record));
  }

  complete(record: ConnectionRecord, outcome: ConnectionOutcome, durationMs: number): void {
    const level = outcome.error === undefined ? "info" : "error";
    if (!this.#log.enabled(level)) return;
    const inbound = record.direction === "inbound";
    this.#log[level]("connection complete", {
      ...recordFields(record),
      // The local reporter's view: what this end sent, unlike the metrics (contract 9.2).
      bytes_sent: inbound ? outcome.serverToClient : outcome.clientToServer,
      bytes_recv: inbound ? outcome.clientToServer : outcome.serverToClient,
      duration: `${Math.round(durationMs)}ms`,
      error: outcome.error === undefined ? undefined : messageOf(outcome.error),
    });
  }
}

function recordFields(record: ConnectionRecord): LogFields {
  const { from, to, mutualTls } = record;
  const fields: Record<string, LogValue> = {
    "src.addr": bareAddress(record.source),
    "src.workload": workloadOf(from),
    "src.namespace": given(from.workload?.namespace ?? from.baggage?.namespace),
    "src.identity": mutualTls ? from.identity : undefined,
    "src.cluster": given(from.workload?.clusterId ?? from.baggage?.clusterName),
    "dst.addr": new Bare(record.destination),
    "dst.hbone_addr": record.authority === undefined ? undefined : new Bare(record.authority),
    "dst.service": given(record.service?.hostname),
    "dst.workload": workloadOf(to),
    "dst.namespace": given(to.workload?.namespace ?? to.baggage?.namespace ?? record.service?.namespace),
    "dst.identity": mutualTls ? to.identity : undefined,
    "dst.cluster": given(to.workload?.clusterId ?? to.baggage?.clusterName),
    direction: record.direction,
  };
  return fields;
}

function workloadOf({ workload, baggage }: End): string | undefined {
  return given(workload?.name) ?? given(workload?.canonicalName) ?? given(baggage?.workloadName);
}

function given(text: string | undefined): string | undefined {
  return text === "" ? undefined : text;
}

function bareAddress(address: SocketAddress | undefined): Bare | undefined {
  return address === undefined ? undefined : new Bare(formatSocketAddress(address));
}
