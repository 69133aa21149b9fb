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

type Value = string | number | null;
type Entry = Readonly<Record<string, Value>>;

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
  #waiting: string[] = [];
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
    if (this.#waiting.length === 0) return;
    const text = this.#waiting.join("");
    this.#waiting = [];
    this.#size = 0;
    this.#options.write(text);
  }

  #log(entry: Entry): void {
    const line = this.#options.format === "json" ? `${JSON.stringify(entry)}\n` : textLine(entry);
    if (this.#size + line.length > maxWaiting) {
      this.#dropped++;
      return;
    }
    this.#waiting.push(line);
    this.#size += line.length;
    this.#timer ??= this.#options.clock.schedule(flushAfterMs, () => this.flush());
  }
}

const empty: Entry = {
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
  const bare = (name: string): string => plain(entry[name] ?? null);
  const quoted = (name: string): string => `"${plain(entry[name] ?? null)}"`;
  return (
    `[${bare("start_time")}] "${bare("method")} ${bare("path")} ${bare("protocol")}" ${bare("response_code")} ${bare("response_flags")} ` +
    `${bare("response_code_details")} ${bare("connection_termination_details")} ${quoted("upstream_transport_failure_reason")} ` +
    `${bare("bytes_received")} ${bare("bytes_sent")} ${bare("duration")} ${bare("upstream_service_time")} ${quoted("x_forwarded_for")} ` +
    `${quoted("user_agent")} ${quoted("request_id")} ${quoted("authority")} ${quoted("upstream_host")} ${bare("upstream_cluster")} ` +
    `${bare("upstream_local_address")} ${bare("downstream_local_address")} ${bare("downstream_remote_address")} ` +
    `${bare("requested_server_name")} ${bare("route_name")}\n`
  );
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
