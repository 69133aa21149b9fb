/**
 * One line per request and per connection, in the words of the reference's default formats: text as Envoy prints it, or JSON with the same
 * names. Lines are gathered and written together; when the reader is slow they are dropped and counted, never held without end.
 */
import { formatSocketAddress, type SocketAddress } from "@fairway/model";
import type { Clock } from "@fairway/runtime";
import type { Downstream, Exchange } from "./exchange.ts";
import type { RequestOutcome } from "./telemetry.ts";

export interface AccessLogOptions {
  readonly format: "text" | "json" | "off";
  /** Takes whole lines. */
  readonly write: (text: string) => void;
  readonly clock: Clock;
}

/** Characters that wait to be written, at most. */
const maxWaiting = 1024 * 1024;
const flushAfterMs = 100;
const linesOfBlock = 32;

type Value = string | number | null;
type Entry = Readonly<Record<keyof typeof empty, Value>>;

/** What is known of a request only when it is over. */
export interface RequestFigures {
  readonly startTime: number;
  readonly durationMs: number;
  readonly flags: string;
  /** 0: the client left before there was an answer. */
  readonly status: number;
}

/** What is logged of a connection of bytes. */
export interface LoggedConnection {
  readonly downstream: Downstream;
  readonly startedAt: number;
  readonly durationMs: number;
  readonly received: number;
  readonly sent: number;
  readonly flags: string;
  readonly detail: string | undefined;
  readonly failure: string | undefined;
  readonly cluster: string | undefined;
  readonly upstream: SocketAddress | undefined;
}

export class AccessLog {
  readonly #options: AccessLogOptions;
  #lines: string[] = [];
  /** Lines gathered before: one object outlives a collection more cheaply than many. */
  #blocks: string[] = [];
  #size = 0;
  #timer: Disposable | undefined;
  #dropped = 0;

  constructor(options: AccessLogOptions) {
    this.#options = options;
  }

  /** Lines nobody could be made to read. */
  get dropped(): number {
    return this.#dropped;
  }

  request(exchange: Exchange, outcome: RequestOutcome, given: RequestFigures): void {
    if (this.#options.format === "off") return;
    this.#log(requestEntry(exchange, outcome, given));
  }

  connection(connection: LoggedConnection): void {
    if (this.#options.format === "off") return;
    this.#log(connectionEntry(connection));
  }

  /** What was refused before it was anything: a tunnel, a CONNECT, bytes that are no request. */
  refused(refusal: {
    readonly startTime: number;
    readonly source: SocketAddress | undefined;
    readonly authority: string | undefined;
    readonly status: number;
    readonly detail: string;
    readonly flags: string;
    readonly failure?: string;
  }): void {
    if (this.#options.format === "off") return;
    const { startTime, source, authority, status, detail, flags, failure } = refusal;
    this.#log({
      ...empty,
      start_time: new Date(startTime).toISOString(),
      method: "CONNECT",
      protocol: "HTTP/2",
      response_code: status,
      response_flags: flags,
      response_code_details: detail,
      authority: authority ?? null,
      downstream_remote_address: shown(source),
      upstream_transport_failure_reason: failure ?? null,
    });
  }

  /** Writes what waits. */
  flush(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
    if (this.#size === 0) return;
    this.#gather();
    const text = this.#blocks.join("");
    this.#blocks = [];
    this.#size = 0;
    this.#options.write(text);
  }

  #gather(): void {
    this.#blocks.push(this.#lines.join(""));
    this.#lines = [];
  }

  #log(entry: Entry): void {
    const line = this.#options.format === "json" ? `${JSON.stringify(entry)}\n` : textLine(entry);
    if (this.#size + line.length > maxWaiting) {
      this.#dropped++;
      return;
    }
    this.#lines.push(line);
    this.#size += line.length;
    if (this.#lines.length >= linesOfBlock) this.#gather();
    this.#timer ??= this.#options.clock.schedule(flushAfterMs, () => this.flush());
  }
}

const empty = {
  start_time: null,
  method: null,
  path: null,
  protocol: null,
  response_code: 0,
  response_flags: "-",
  response_code_details: null,
  connection_termination_details: null,
  upstream_transport_failure_reason: null,
  bytes_received: 0,
  bytes_sent: 0,
  duration: 0,
  upstream_service_time: null,
  x_forwarded_for: null,
  user_agent: null,
  request_id: null,
  authority: null,
  upstream_host: null,
  upstream_cluster: null,
  upstream_local_address: null,
  downstream_local_address: null,
  downstream_remote_address: null,
  requested_server_name: null,
  route_name: null,
};

function requestEntry(exchange: Exchange, { delivery }: RequestOutcome, given: RequestFigures): Entry {
  const { record, request, downstream, head, route } = exchange;
  return {
    ...empty,
    start_time: new Date(given.startTime).toISOString(),
    method: request.head.method,
    path: request.head.path,
    protocol: request.version === "http2" ? "HTTP/2" : "HTTP/1.1",
    response_code: given.status,
    response_flags: given.flags,
    response_code_details: record.detail ?? null,
    upstream_transport_failure_reason: record.failure ?? null,
    bytes_received: delivery.bytesReceived,
    bytes_sent: delivery.bytesSent,
    duration: Math.round(given.durationMs),
    upstream_service_time: record.upstreamMs === undefined ? null : Math.round(record.upstreamMs),
    x_forwarded_for: request.head.headers.get("x-forwarded-for") ?? null,
    user_agent: request.head.headers.get("user-agent") ?? null,
    request_id: head.headers.get("x-request-id") ?? null,
    authority: request.head.authority,
    upstream_host: shown(record.upstream),
    upstream_cluster: record.cluster ?? null,
    downstream_local_address: shown(downstream.destination),
    downstream_remote_address: shown(downstream.source),
    route_name: route?.name ?? null,
  };
}

function connectionEntry({ downstream, startedAt, durationMs, received, sent, flags, detail, failure, cluster, upstream }: LoggedConnection): Entry {
  return {
    ...empty,
    start_time: new Date(startedAt).toISOString(),
    response_flags: flags,
    response_code_details: detail ?? null,
    upstream_transport_failure_reason: failure ?? null,
    bytes_received: received,
    bytes_sent: sent,
    duration: Math.round(durationMs),
    upstream_host: shown(upstream),
    upstream_cluster: cluster ?? null,
    downstream_local_address: shown(downstream.destination),
    downstream_remote_address: shown(downstream.source),
  };
}

/** `[%START_TIME%] "%REQ(:METHOD)% …`: the reference's default text format. */
function textLine(entry: Entry): string {
  // Joined, and not put together piece by piece, which would keep every piece until the line is written.
  return [
    `[${plain(entry.start_time)}]`,
    `"${plain(entry.method)}`,
    plain(entry.path),
    `${plain(entry.protocol)}"`,
    plain(entry.response_code),
    plain(entry.response_flags),
    plain(entry.response_code_details),
    plain(entry.connection_termination_details),
    `"${plain(entry.upstream_transport_failure_reason)}"`,
    plain(entry.bytes_received),
    plain(entry.bytes_sent),
    plain(entry.duration),
    plain(entry.upstream_service_time),
    `"${plain(entry.x_forwarded_for)}"`,
    `"${plain(entry.user_agent)}"`,
    `"${plain(entry.request_id)}"`,
    `"${plain(entry.authority)}"`,
    `"${plain(entry.upstream_host)}"`,
    plain(entry.upstream_cluster),
    plain(entry.upstream_local_address),
    plain(entry.downstream_local_address),
    plain(entry.downstream_remote_address),
    plain(entry.requested_server_name),
    `${plain(entry.route_name)}\n`,
  ].join(" ");
}

/** What JSON would escape. */
const needsEscape = /["\\\p{Cc}\u{2028}\u{2029}\u{d800}-\u{dfff}]/u;

/** Nothing that a client sends can end the line or the quotes. */
function plain(value: Value): string {
  if (value === null || value === "") return "-";
  if (typeof value === "number") return String(value);
  return needsEscape.test(value) ? JSON.stringify(value).slice(1, -1) : value;
}

function shown(address: SocketAddress | undefined): string | null {
  return address === undefined ? null : formatSocketAddress(address);
}
