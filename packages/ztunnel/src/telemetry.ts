/** What the outside learns of a connection: the access log, the metrics and the live counters, told in one place. */
import type { SocketAddress } from "@fairway/model";
import type { Clock } from "@fairway/runtime";
import type { AccessLog } from "./access-log.ts";
import type { ConnectionRecord, Direction } from "./connection-record.ts";
import { flagOf } from "./failure.ts";
import type { ZtunnelMetrics } from "./metrics.ts";
import type { TrafficSeries } from "./traffic-metrics.ts";

export interface Telemetry {
  readonly metrics: ZtunnelMetrics;
  readonly accessLog: AccessLog;
  readonly clock: Clock;
}

/** A connection that ended before it was known what it was: a log line and no metrics (ztunnel contract 9.1). */
export function reportRefused(
  { accessLog }: Telemetry,
  refusal: { source: SocketAddress | undefined; destination: SocketAddress | undefined; direction: Direction; error: unknown },
): void {
  accessLog.refused(refusal);
}

/** One connection from "opened" to "complete". */
export class ConnectionReport {
  readonly #telemetry: Telemetry;
  readonly #record: ConnectionRecord;
  readonly #series: TrafficSeries;
  readonly #startedAt: number;
  #clientToServer = 0;
  #serverToClient = 0;
  #closed = false;

  /** `startedAt` is the moment of the accept, by the monotonic clock. */
  constructor(telemetry: Telemetry, record: ConnectionRecord, startedAt: number) {
    this.#telemetry = telemetry;
    this.#record = record;
    this.#startedAt = startedAt;
    this.#series = telemetry.metrics.traffic.series(record);
    this.#series.open();
    telemetry.metrics.openSockets.inc({ reporter: reporterOf(record) });
    telemetry.accessLog.opened(record);
  }

  /** Bytes that moved in both directions so far; what a deadline looks at. */
  get moved(): number {
    return this.#clientToServer + this.#serverToClient;
  }

  /** Counts bytes that moved since the last call. */
  bytes(clientToServer: number, serverToClient: number): void {
    this.#clientToServer += clientToServer;
    this.#serverToClient += serverToClient;
    this.#series.received += clientToServer;
    this.#series.sent += serverToClient;
  }

  /** The end, with the error that brought it, if one did. Later calls say nothing. */
  close(error: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    const { metrics, accessLog, clock } = this.#telemetry;
    this.#series.close(flagOf(error));
    metrics.openSockets.dec({ reporter: reporterOf(this.#record) });
    const outcome = { clientToServer: this.#clientToServer, serverToClient: this.#serverToClient, error };
    accessLog.complete(this.#record, outcome, clock.monotonic() - this.#startedAt);
  }
}

function reporterOf({ direction }: ConnectionRecord): "source" | "destination" {
  return direction === "inbound" ? "destination" : "source";
}
