/**
 * The client's connection, HTTP/1: one request after another, in order. Requests that a client sends ahead wait as bytes.
 * Phases: head → body (the request's rest flows) → answering (it is whole) → head …; upgraded; lingering (answered, reads what the client still
 * sends so that it gets the answer, RFC 9112 9.6) → gone.
 */
import type { Duplex } from "node:stream";
import { type Clock, MeshError, systemClock } from "@fairway/runtime";
import { waypointError } from "../failure.ts";
import type { ServeHttp, ServerConnection, ServerConnectionOptions } from "../http-connection.ts";
import { clientGone, malformed } from "../message-rules.ts";
import { decoderOf, RawDecoder } from "./body-decoder.ts";
import { findHeadEnd, parseRequest, type RequestMessage } from "./head.ts";
import { statusLine } from "./head-writer.ts";
import { requestFault } from "./header-block.ts";
import { IdleWatch } from "./idle-watch.ts";
import { type BodyOwner, ReceivedBody } from "./received-body.ts";
import { type ExchangeOwner, ServerExchange } from "./server-exchange.ts";
import { type WireEvents, WireReader, WireWriter } from "./wire.ts";

/** How long a client that was answered may take to close. */
const lingerMs = 5_000;
/**
 * How long a connection that leaves still takes a request after its last one. A client that sends when the end is already on its way loses its
 * request (RFC 9112 9.3.1), and the busier the connection the likelier: it is better told with an answer.
 */
const leaveAfterMs = 5_000;

type Phase = "head" | "body" | "answering" | "upgraded" | "lingering" | "gone";

export const serveHttp1: ServeHttp = (transport, options) => {
  const connection = new Http1ServerConnection(transport, options);
  connection.start();
  return connection;
};

class Http1ServerConnection implements ServerConnection, ExchangeOwner, BodyOwner, WireEvents {
  readonly closed: Promise<void>;
  readonly writer: WireWriter;
  readonly #transport: Duplex;
  readonly #options: ServerConnectionOptions;
  readonly #clock: Clock;
  readonly #reader: WireReader;
  readonly #idle: IdleWatch;
  #onClosed: () => void = () => undefined;
  #phase: Phase = "head";
  /** Bytes of the head that were searched for its end. */
  #searched = 0;
  /** An empty line was skipped before the head. */
  #forgiven = false;
  #exchange: ServerExchange | undefined;
  #requests = 0;
  #draining = false;
  #timer: Disposable | undefined;
  /** Since when nothing is asked. */
  #idleSince: number;
  #leaving: Disposable | undefined;
  #stepping = false;
  #destroyedBy: Error | undefined;

  constructor(transport: Duplex, options: ServerConnectionOptions) {
    this.#transport = transport;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#idleSince = this.#clock.monotonic();
    this.writer = new WireWriter(transport, options.limits.highWaterMark);
    this.#reader = new WireReader(transport, options.limits.highWaterMark, this);
    this.#idle = new IdleWatch(this.#clock, options.limits.idleTimeoutMs, () => this.#onIdle());
    this.closed = new Promise((resolve) => {
      this.#onClosed = resolve;
    });
  }

  start(): void {
    this.#reader.start();
  }

  get active(): number {
    return this.#exchange === undefined ? 0 : 1;
  }

  get reusable(): boolean {
    return !this.#draining && !this.#reader.ended && this.#requests < this.#options.limits.maxRequestsPerConnection;
  }

  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    if (this.#phase === "head" && this.#reader.unread === 0) this.#leave();
  }

  destroy(reason: Error): void {
    this.#destroyedBy ??= reason;
    // With an error, so that a transport that can tell a break from an end does.
    this.#transport.destroy(reason);
    this.#letGo(reason);
  }

  onReadable(): void {
    this.#idle.touch();
    this.#advance();
  }

  onGone(error: Error | undefined): void {
    this.#letGo(this.#destroyedBy ?? clientGone(error));
    this.#onClosed();
  }

  onBodyWanted(): void {
    this.#exchange?.continue();
    this.#advance();
  }

  /** The rest of the request is not read: after the answer the connection ends. */
  onBodyCancelled(): void {
    const exchange = this.#exchange;
    if (exchange === undefined) return;
    if (exchange.upgraded) {
      // Half of a switched connection cannot be refused alone.
      this.destroy(waypointError("WAYPOINT_UPSTREAM_RESET", "the other end of the upgraded connection is gone"));
      return;
    }
    if (exchange.upgrade !== undefined) return;
    exchange.keepAlive = false;
    if (this.#phase === "body") this.#phase = "answering";
    if (exchange.answerSent) this.#finish(exchange);
  }

  #advance(): void {
    if (this.#stepping) return;
    this.#stepping = true;
    try {
      while (this.#step());
    } finally {
      this.#stepping = false;
    }
    if (this.#phase !== "gone") this.#reader.want(this.#wantsBytes());
  }

  /** One step; true when there may be another. */
  #step(): boolean {
    switch (this.#phase) {
      case "head":
        return this.#readHead();
      case "body":
        return this.#readBody();
      case "upgraded":
        return this.#readRaw();
      case "lingering":
        this.#reader.discard();
        if (this.#reader.ended && this.#transport.writableFinished) this.#transport.destroy();
        return false;
      case "answering":
      case "gone":
        return false;
    }
  }

  #wantsBytes(): boolean {
    switch (this.#phase) {
      case "body":
      case "upgraded":
        return this.#exchange?.received?.wanted === true;
      default:
        return this.#phase !== "answering";
    }
  }

  #readHead(): boolean {
    const reader = this.#reader;
    // One empty line before a request is forgiven (RFC 9112 2.2).
    if (!this.#forgiven && reader.unread >= 2 && reader.bytes[reader.at] === 0x0d && reader.bytes[reader.at + 1] === 0x0a) {
      this.#forgiven = true;
      this.#searched = 0;
      reader.at += 2;
    }
    if (reader.unread === 0) {
      if (reader.ended) this.#linger();
      else if (this.#draining) this.#leave();
      return false;
    }
    const { limits } = this.#options;
    const bytes = reader.at === 0 ? reader.bytes : reader.bytes.subarray(reader.at);
    const end = findHeadEnd(bytes, this.#searched);
    if (end < 0 || end > limits.maxHeaderBytes) {
      if (end === -2) this.#refuse(malformed(400, "a line of the head ends in a line feed alone"));
      else if (end > 0 || bytes.length > limits.maxHeaderBytes) {
        const line = bytes.indexOf("\r\n");
        this.#refuse(
          line < 0 || line > limits.maxRequestTargetBytes + 64 ? malformed(414, "the request line is too long") : malformed(431, "the header is too large"),
        );
      } else if (reader.ended) this.#linger();
      else {
        this.#searched = bytes.length;
        this.#timer ??= this.#clock.schedule(limits.headersTimeoutMs, () => this.#onSlowHead());
      }
      return false;
    }
    this.#searched = 0;
    this.#stopTimer();
    let message: RequestMessage;
    try {
      message = parseRequest(bytes.toString("latin1", 0, end - 2), limits);
    } catch (thrown) {
      this.#refuse(MeshError.from(thrown, "WAYPOINT_REQUEST_MALFORMED"));
      return false;
    }
    reader.at += end;
    this.#begin(message);
    return true;
  }

  #begin(message: RequestMessage): void {
    this.#stay();
    this.#requests += 1;
    this.#forgiven = false;
    let received: ReceivedBody | undefined;
    if (message.upgrade !== undefined) received = new ReceivedBody(undefined, new RawDecoder(), this);
    else {
      const decoder = decoderOf(message.framing, this.#options.limits, requestFault);
      if (decoder !== undefined) received = new ReceivedBody(message.framing.kind === "length" ? message.framing.length : undefined, decoder, this);
    }
    const exchange = new ServerExchange(message, received, this);
    this.#exchange = exchange;
    this.#phase = received === undefined || message.upgrade !== undefined ? "answering" : "body";
    this.#options.onRequest(exchange);
  }

  #readBody(): boolean {
    const exchange = this.#exchange;
    const body = exchange?.received;
    if (exchange === undefined || body === undefined) return false;
    try {
      body.pump(this.#reader);
    } catch (thrown) {
      this.#breakBody(exchange, MeshError.from(thrown, "WAYPOINT_REQUEST_MALFORMED"));
      return true;
    }
    if (this.#phase !== "body") return true;
    if (!body.over) {
      if (this.#reader.ended && this.#reader.unread === 0 && body.flowing)
        this.#breakBody(exchange, clientGone("the connection ended within the request's body"));
      return false;
    }
    this.#phase = "answering";
    if (exchange.answerSent) this.#finish(exchange);
    return true;
  }

  /** The request's body cannot be read on. Its answer, if there is to be one, is the last. */
  #breakBody(exchange: ServerExchange, error: MeshError): void {
    exchange.keepAlive = false;
    this.#reader.discard();
    this.#phase = "answering";
    exchange.received?.fail(error);
    // Half an answer to half a request is worth nothing to anybody.
    if (exchange.answered && !exchange.over) this.destroy(error);
  }

  #readRaw(): boolean {
    const exchange = this.#exchange;
    const body = exchange?.received;
    if (exchange === undefined || body === undefined) return false;
    body.pump(this.#reader);
    if (this.#reader.ended && this.#reader.unread === 0 && body.flowing) {
      if (this.#reader.cut) this.destroy(clientGone());
      else body.finish();
    }
    if (body.over && exchange.answerSent) this.#finish(exchange);
    return false;
  }

  settleRequest(exchange: ServerExchange): boolean {
    const body = exchange.received;
    if (body === undefined || exchange.upgrade !== undefined) return true;
    if (this.#phase !== "body") return exchange.keepAlive;
    if (body.flowing) return true;
    // A request nobody reads: what of it is here already is dropped, for more than that nobody waits.
    if (exchange.withholdsBody) return false;
    try {
      if (!body.skip(this.#reader)) return false;
    } catch {
      this.#reader.discard();
      return false;
    }
    body.abandon();
    this.#phase = "answering";
    return true;
  }

  onAnswered(exchange: ServerExchange): void {
    if (exchange.upgraded) {
      this.writer.end();
      if (exchange.received?.over === true) this.#finish(exchange);
      return;
    }
    this.writer.flush();
    this.#finish(exchange);
  }

  onAnswerBroken(exchange: ServerExchange, error: Error): void {
    // Never a clean end: what was sent must not look complete.
    this.#exchange = undefined;
    exchange.finish(error);
    this.destroy(error);
  }

  onUnanswerable(error: Error): void {
    this.destroy(error);
  }

  onUpgraded(exchange: ServerExchange): void {
    this.#phase = "upgraded";
    if (exchange.received?.wanted === true) this.#advance();
  }

  /** The answer is whole, and so is the request, or nobody wants more of it. */
  #finish(exchange: ServerExchange): void {
    if (this.#exchange !== exchange) return;
    const whole = this.#phase !== "body";
    this.#exchange = undefined;
    this.#idle.touch();
    this.#idleSince = this.#clock.monotonic();
    if (exchange.upgraded) {
      this.#phase = "lingering";
      this.#linger();
    } else if (whole && exchange.keepAlive) this.#phase = "head";
    else this.#linger();
    exchange.finish(undefined);
    this.#advance();
  }

  #refuse(error: MeshError): void {
    const status = typeof error.details["status"] === "number" ? error.details["status"] : 400;
    this.writer.text(
      `${statusLine(status)}${status === 405 ? "allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n" : ""}content-length: 0\r\nconnection: close\r\n\r\n`,
    );
    this.#linger();
    this.#options.onRefused({ status, detail: error.message });
  }

  /** Ends the connection once nothing was asked for a while; a request that comes before is answered, and told to be the last. */
  #leave(): void {
    const wait = this.#idleSince + leaveAfterMs - this.#clock.monotonic();
    if (wait <= 0) this.#linger();
    else this.#leaving ??= this.#clock.schedule(wait, () => this.#onIdle());
  }

  #stay(): void {
    this.#leaving?.[Symbol.dispose]();
    this.#leaving = undefined;
  }

  #linger(): void {
    this.#stay();
    this.#stopTimer();
    this.#phase = "lingering";
    this.#reader.discard();
    this.writer.end();
    if (this.#reader.gone) return;
    this.#timer = this.#clock.schedule(lingerMs, () => this.#transport.destroy());
    if (this.#transport.writableFinished) this.#onFinish();
    else this.#transport.once("finish", this.#onFinish);
    this.#reader.want(true);
  }

  readonly #onFinish = (): void => {
    if (this.#reader.ended) this.#transport.destroy();
  };

  #onSlowHead(): void {
    this.#timer = undefined;
    if (this.#phase === "head") this.#refuse(malformed(408, "the head of the request did not arrive in time"));
  }

  #onIdle(): void {
    if (this.#phase === "head" && this.#reader.unread === 0) this.#linger();
  }

  #stopTimer(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
  }

  #letGo(error: Error): void {
    if (this.#phase === "gone") return;
    this.#phase = "gone";
    this.#stay();
    this.#stopTimer();
    this.#idle[Symbol.dispose]();
    this.#reader.discard();
    const exchange = this.#exchange;
    this.#exchange = undefined;
    exchange?.finish(error);
  }
}
