/**
 * A connection to an endpoint, HTTP/1: one request at a time.
 * Phases: idle ⇄ busy (head → body of the answer, while the request goes out) → upgraded → gone. It is idle again only when request and answer
 * were whole, nothing follows the answer, and neither side said that it closes.
 */
import type { Duplex } from "node:stream";
import { MeshError } from "@fairway/runtime";
import type { Answer, ClientConnection, ClientConnectionOptions, ConnectHttp, OutgoingRequest } from "../http-connection.ts";
import { garbage, upstreamReset } from "../message-rules.ts";
import { ClientRequest, type RequestOwner } from "./client-request.ts";
import { findHeadEnd, parseResponse } from "./head.ts";
import { type WireEvents, WireReader, WireWriter } from "./wire.ts";

export const connectHttp1: ConnectHttp = (transport, options) => {
  const connection = new Http1ClientConnection(transport, options);
  connection.start();
  return connection;
};

class Http1ClientConnection implements ClientConnection, RequestOwner, WireEvents {
  readonly version = "http1";
  readonly closed: Promise<void>;
  readonly writer: WireWriter;
  readonly #transport: Duplex;
  readonly #options: ClientConnectionOptions;
  readonly #reader: WireReader;
  #onClosed: () => void = () => undefined;
  #request: ClientRequest | undefined;
  #requests = 0;
  /** No further request, whatever becomes of this one. */
  #spent = false;
  #searched = 0;
  #stepping = false;

  constructor(transport: Duplex, options: ClientConnectionOptions) {
    this.#transport = transport;
    this.#options = options;
    this.writer = new WireWriter(transport, options.limits.highWaterMark);
    this.#reader = new WireReader(transport, options.limits.highWaterMark, this);
    this.closed = new Promise((resolve) => {
      this.#onClosed = resolve;
    });
  }

  start(): void {
    this.#reader.start();
  }

  get usable(): boolean {
    return !this.#spent && this.#request === undefined && !this.#reader.ended && !this.#reader.gone && this.#transport.writable;
  }

  get active(): number {
    return this.#request === undefined ? 0 : 1;
  }

  send(request: OutgoingRequest, { signal }: { signal: AbortSignal }): Promise<Answer> {
    if (signal.aborted) return Promise.reject(signal.reason);
    if (!this.usable) return Promise.reject(upstreamReset("the connection takes no request now", { sent: false }));
    this.#requests += 1;
    if (this.#requests >= this.#options.limits.maxRequestsPerConnection) this.#spend();
    const current = new ClientRequest(request, { owner: this, signal });
    this.#request = current;
    try {
      current.start();
    } catch (thrown) {
      this.#request = undefined;
      current.fail(MeshError.from(thrown, "WAYPOINT_UNSENDABLE"));
      if (this.#spent) this.#end();
      else this.#options.onAvailable?.();
    }
    return current.answer;
  }

  drain(): void {
    this.#spend();
    if (this.#request === undefined) this.#end();
  }

  destroy(reason: Error): void {
    this.#break(reason);
  }

  onReadable(): void {
    this.#advance();
  }

  onGone(error: Error | undefined): void {
    this.#spend();
    const request = this.#request;
    // What arrived before the end is still the answer's.
    if (request?.answered && error === undefined) this.#advance();
    else {
      this.#request = undefined;
      request?.fail(upstreamReset(brokenOff(request), { sent: true, idle: this.#wasIdle(request) }, error));
    }
    this.#onClosed();
  }

  onBodyWanted(): void {
    this.#advance();
  }

  onBodyCancelled(reason: Error): void {
    this.#break(reason);
  }

  onRequestBroken(request: ClientRequest, error: Error): void {
    if (this.#request === request) this.#break(error);
  }

  onProgress(request: ClientRequest): void {
    if (this.#request !== request) return;
    if (request.upgraded) this.writer.end();
    this.#settle(request);
  }

  onUpgraded(): void {
    this.#spend();
  }

  #advance(): void {
    if (this.#stepping) return;
    this.#stepping = true;
    try {
      while (this.#step());
    } catch (thrown) {
      this.#break(MeshError.from(thrown, "WAYPOINT_UPSTREAM_GARBAGE"));
    } finally {
      this.#stepping = false;
    }
    if (!this.#reader.gone) this.#reader.want(this.#request?.answered !== true || this.#request.received?.wanted === true);
  }

  /** One step; true when there may be another. Throws for what is not HTTP. */
  #step(): boolean {
    const reader = this.#reader;
    const request = this.#request;
    if (request === undefined) {
      if (reader.gone) return false;
      // Bytes nobody asked for would be taken for the next answer.
      if (reader.unread > 0) throw garbage("bytes that nobody asked for");
      if (reader.ended) this.#end();
      return false;
    }
    if (!request.answered) return this.#readHead(request);
    const body = request.received;
    if (body === undefined) return false;
    body.pump(reader);
    if (this.#request !== request) return true;
    if (!body.over && (reader.ended || reader.gone) && reader.unread === 0 && body.flowing && (reader.cut || !reader.ended || !body.finish())) {
      this.#break(upstreamReset(brokenOff(request), { sent: true }));
      return false;
    }
    return this.#settle(request);
  }

  /** Nothing of the answer is there, on a connection that was kept: it may have been closed before the request came. */
  #wasIdle(request: ClientRequest): boolean {
    return this.#requests > 1 && !request.answered && this.#reader.unread === 0;
  }

  #readHead(request: ClientRequest): boolean {
    const reader = this.#reader;
    const { limits } = this.#options;
    const bytes = reader.at === 0 ? reader.bytes : reader.bytes.subarray(reader.at);
    const end = findHeadEnd(bytes, this.#searched);
    if (end === -2) throw garbage("a line of the head ends in a line feed alone");
    if (end > limits.maxHeaderBytes || (end < 0 && bytes.length > limits.maxHeaderBytes)) throw garbage("the header is too large");
    if (end < 0) {
      if (reader.ended) {
        if (bytes.length > 0 && !reader.cut) throw garbage("it ends within its head");
        this.#break(upstreamReset(brokenOff(request), { sent: true, idle: this.#wasIdle(request) }));
      } else if (bytes.length > 0 && bytes[0] !== 0x48) throw garbage("it does not begin with HTTP/");
      this.#searched = bytes.length;
      return false;
    }
    this.#searched = 0;
    const message = parseResponse(bytes.toString("latin1", 0, end - 2), request.request.head.method, limits);
    reader.at += end;
    request.take(message, limits);
    if (request.answered) this.#settle(request);
    return true;
  }

  /** Where the answer is whole the exchange is over; true when there is something to look at then. */
  #settle(request: ClientRequest): boolean {
    if (this.#request !== request || !request.answered || (request.received !== undefined && !request.received.over)) return false;
    if (request.upgraded && !request.requestSent) return false;
    const reusable = request.keepAlive && request.requestSent && !this.#spent;
    this.#request = undefined;
    request.finish();
    if (!reusable || this.#reader.ended) {
      this.#spend();
      this.#end();
      return false;
    }
    if (this.#reader.unread > 0) this.#break(garbage("bytes that nobody asked for"));
    else this.#options.onAvailable?.();
    return false;
  }

  #spend(): void {
    if (this.#spent) return;
    this.#spent = true;
    this.#options.onUnusable();
  }

  /** After the last exchange: nothing waits to be read, so nothing is lost by closing at once. */
  #end(): void {
    this.#spend();
    if (this.#reader.gone) return;
    this.writer.end();
    if (this.#transport.writableFinished) this.#transport.destroy();
    else this.#transport.once("finish", () => this.#transport.destroy());
  }

  #break(error: Error): void {
    this.#spend();
    const request = this.#request;
    this.#request = undefined;
    this.#reader.discard();
    // With an error, so that a transport that can tell a break from an end does.
    this.#transport.destroy(error);
    request?.fail(error);
  }
}

function brokenOff(request: ClientRequest): string {
  return request.answered ? "the upstream broke off within its answer" : "the upstream ended the connection without an answer";
}
