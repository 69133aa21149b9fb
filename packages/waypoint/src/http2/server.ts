/** HTTP/2 of a client: every stream a request. Malformed ones are answered or reset here, floods end the session. */
import { constants, performServerHandshake, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import type { Duplex } from "node:stream";
import { UnblockedTransport } from "@fairway/hbone";
import type { HeaderFields } from "@fairway/model";
import type { Body } from "../body.ts";
import type { Answer, Delivery, IncomingRequest, ServeHttp, ServerConnection, ServerConnectionOptions } from "../http-connection.ts";
import { clientGone, isBodiless, parseContentLength } from "../message-rules.ts";
import { type ReadRequest, readRequest, writeAnswer } from "./fields.ts";
import { connectionWindow, sessionOptions, sessionSettings } from "./limits.ts";
import { reset, StreamBody, sendBody } from "./stream-body.ts";

const { NGHTTP2_CANCEL, NGHTTP2_INTERNAL_ERROR, NGHTTP2_NO_ERROR, NGHTTP2_FLAG_END_STREAM } = constants;
/** `sendDate` is missing from the type of the options, hence constants: dates are the application's. */
const withBody = { endStream: false, waitForTrailers: true, sendDate: false };
const withoutBody = { endStream: true, sendDate: false };

export const serveHttp2: ServeHttp = (transport, options) => new Http2ServerConnection(transport, options);

class Http2ServerConnection implements ServerConnection {
  readonly closed: Promise<void>;
  readonly #session: ServerHttp2Session;
  readonly #options: ServerConnectionOptions;
  #active = 0;
  #requests = 0;

  constructor(transport: Duplex, options: ServerConnectionOptions) {
    const { limits } = options;
    this.#options = options;
    this.#session = performServerHandshake(new UnblockedTransport(transport), {
      ...sessionOptions(limits),
      settings: { ...sessionSettings(limits), enableConnectProtocol: true },
    });
    const session = this.#session;
    session.on("error", () => undefined);
    session.on("stream", (stream, _headers, flags, raw: unknown) => this.#onStream(stream, flags, Array.isArray(raw) ? (raw as string[]) : []));
    session.once("connect", () => {
      if (!session.destroyed) session.setLocalWindowSize(connectionWindow);
    });
    session.setTimeout(limits.idleTimeoutMs, () => {
      if (this.#active === 0) this.drain();
    });
    this.closed = new Promise((resolve) => session.once("close", () => resolve()));
  }

  get active(): number {
    return this.#active;
  }

  drain(): void {
    if (!this.#session.closed) this.#session.close();
  }

  destroy(): void {
    this.#session.destroy(undefined, NGHTTP2_CANCEL);
  }

  #onStream(stream: ServerHttp2Stream, flags: number, raw: readonly string[]): void {
    stream.on("error", () => undefined);
    const read = readRequest(raw, this.#options.limits);
    if ("status" in read) {
      stream.respond([":status", String(read.status), "content-length", "0"], withoutBody);
      reset(stream, NGHTTP2_NO_ERROR);
      this.#options.onRefused(read);
      return;
    }
    this.#active++;
    stream.once("close", () => {
      this.#active--;
    });
    const ended = (flags & NGHTTP2_FLAG_END_STREAM) !== 0;
    this.#options.onRequest(new Http2Request(stream, read, ended));
    this.#requests++;
    if (this.#requests >= this.#options.limits.maxRequestsPerConnection) this.drain();
  }
}

/** Of a body that is not sent: what the application said, or what there was. */
function announced(headers: HeaderFields, length: number | undefined): number | undefined {
  return parseContentLength(headers.get("content-length") ?? "") ?? (length || undefined);
}

class Http2Request implements IncomingRequest {
  readonly version = "http2";
  readonly head: IncomingRequest["head"];
  readonly upgrade: string | undefined;
  readonly body: Body;
  onDone: ((outcome: Delivery) => void) | undefined;
  readonly #stream: ServerHttp2Stream;
  readonly #received: StreamBody;
  #sent = 0;
  /** Undefined until there is an answer. */
  #answered: "sending" | "sent" | "broken" | undefined;

  constructor(stream: ServerHttp2Stream, { head, upgrade, contentLength }: ReadRequest, ended: boolean) {
    this.#stream = stream;
    this.head = head;
    this.upgrade = upgrade;
    this.#received = new StreamBody(stream, ended ? 0 : contentLength === 0 ? undefined : contentLength, {
      failure: () => clientGone(),
      onCancel: () => this.#dropRest(),
    });
    this.body = this.#received;
    // A request without a body must be read to its end all the same, or the stream never closes.
    if (ended) stream.resume();
    stream.once("close", () => this.#over());
  }

  inform(status: number, headers: HeaderFields): void {
    const stream = this.#stream;
    if (this.#answered === undefined && !stream.destroyed && !stream.closed) stream.additionalHeaders(Object.fromEntries([[":status", status], ...headers]));
  }

  respond({ status, headers, body }: Answer): void {
    const stream = this.#stream;
    if (this.#answered !== undefined) return;
    if (stream.destroyed || stream.closed) {
      body.cancel(clientGone());
      return;
    }
    // RFC 8441 4: 200 is what 101 is to HTTP/1.
    const shown = this.upgrade !== undefined && status === 101 ? 200 : status;
    const length = shown === status ? body.length : undefined;
    if (body.length === 0 || isBodiless(this.head.method, shown)) {
      stream.respond(writeAnswer(shown, headers, isBodiless(this.head.method, shown) ? announced(headers, length) : length), withoutBody);
      if (body.length !== 0) body.cancel(new Error("the answer has no body"));
      this.#answered = "sent";
      this.#finishEarly();
      return;
    }
    this.#answered = "sending";
    stream.respond(writeAnswer(shown, headers, length), withBody);
    stream.once("finish", () => {
      // A stream that is reset finishes as well.
      if (this.#answered === "sending" && stream.rstCode === NGHTTP2_NO_ERROR) this.#answered = "sent";
      if (this.#answered === "sent") this.#finishEarly();
    });
    const onBytes = (bytes: number): void => {
      this.#sent += bytes;
    };
    // It broke off on its way here, which is not the client's doing.
    const onBroken = (): void => {
      this.#answered = "broken";
    };
    sendBody(stream, body, { brokenCode: NGHTTP2_INTERNAL_ERROR, onBytes, onBroken });
  }

  /** Nobody reads on. The stream stays until the answer is out, and what the client sends meanwhile stays within its window. */
  #dropRest(): void {
    if (this.#answered === "sent") reset(this.#stream, NGHTTP2_NO_ERROR);
    else if (!this.#stream.destroyed) this.#stream.pause();
  }

  /** The answer is out before the request was: nobody wants the rest of it (RFC 9113 8.1). */
  #finishEarly(): void {
    if (this.upgrade !== undefined || this.#stream.readableEnded) return;
    if (this.#received.over && !this.#received.cancelled) return;
    if (this.#received.cancelled) this.#dropRest();
    else this.#received.cancel();
  }

  #over(): void {
    const done = this.onDone;
    this.onDone = undefined;
    const whole = this.#answered === "sent";
    done?.({ bytesReceived: this.#received.bytes, bytesSent: this.#sent, error: whole ? undefined : clientGone() });
  }
}
