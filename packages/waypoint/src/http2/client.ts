/** HTTP/2 to an endpoint: many requests on one connection. */
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from "node:http2";
import type { Duplex } from "node:stream";
import { UnblockedTransport } from "@fairway/hbone";
import { emptyBody } from "../body.ts";
import type { Answer, ClientConnection, ConnectHttp, HttpLimits, OutgoingRequest } from "../http-connection.ts";
import { garbage, upstreamReset } from "../message-rules.ts";
import { readFields, writeRequest } from "./fields.ts";
import { connectionWindow, sessionOptions, sessionSettings } from "./limits.ts";
import { reset, StreamBody, sendBody } from "./stream-body.ts";

const { NGHTTP2_CANCEL, NGHTTP2_REFUSED_STREAM, NGHTTP2_NO_ERROR, NGHTTP2_FLAG_END_STREAM } = constants;

export const connectHttp2: ConnectHttp = (transport, options) => new Http2ClientConnection(transport, options);

class Http2ClientConnection implements ClientConnection {
  readonly version = "http2";
  readonly closed: Promise<void>;
  readonly #session: ClientHttp2Session;
  readonly #limits: HttpLimits;
  readonly #onUnusable: () => void;
  #active = 0;
  #requests = 0;
  #retired = false;

  constructor(transport: Duplex, { limits, onUnusable }: { limits: HttpLimits; onUnusable: () => void }) {
    this.#limits = limits;
    this.#onUnusable = onUnusable;
    // The authority is each request's own; this one only has to be a URL.
    this.#session = connect("http://upstream", {
      ...sessionOptions(limits),
      settings: { ...sessionSettings(limits), enablePush: false },
      createConnection: () => new UnblockedTransport(transport),
    });
    const session = this.#session;
    session.on("error", () => this.#retire());
    session.on("goaway", () => this.#retire());
    session.once("connect", () => {
      if (!session.destroyed) session.setLocalWindowSize(connectionWindow);
    });
    this.closed = new Promise((resolve) => {
      session.once("close", () => {
        this.#retire();
        resolve();
      });
    });
  }

  get usable(): boolean {
    const session = this.#session;
    const most = Math.min(this.#limits.maxConcurrentStreams, session.remoteSettings?.maxConcurrentStreams ?? this.#limits.maxConcurrentStreams);
    return !this.#retired && !session.closed && !session.destroyed && this.#active < most;
  }

  get active(): number {
    return this.#active;
  }

  drain(): void {
    this.#retire();
    if (!this.#session.closed) this.#session.close();
  }

  destroy(): void {
    this.#retire();
    this.#session.destroy(undefined, NGHTTP2_CANCEL);
  }

  send({ head, body, upgrade, onInform }: OutgoingRequest, { signal }: { signal: AbortSignal }): Promise<Answer> {
    if (signal.aborted) return Promise.reject(signal.reason);
    if (this.#session.closed || this.#session.destroyed) {
      return Promise.reject(upstreamReset("the connection to the endpoint was closed", { sent: false, refused: true }));
    }
    const endStream = body.length === 0 && upgrade === undefined;
    let stream: ClientHttp2Stream;
    try {
      const options = endStream ? { endStream } : { endStream, waitForTrailers: true };
      stream = this.#session.request(writeRequest(head, upgrade, upgrade === undefined ? body.length : undefined), options);
    } catch (cause) {
      return Promise.reject(upstreamReset("the request cannot be sent over HTTP/2", { sent: false }, cause));
    }
    this.#count(stream);
    const answer = this.#answerOf(stream, head.method, upgrade, onInform, signal);
    if (!endStream) sendBody(stream, body, { brokenCode: NGHTTP2_CANCEL });
    return answer;
  }

  #answerOf(
    stream: ClientHttp2Stream,
    method: string,
    upgrade: string | undefined,
    onInform: OutgoingRequest["onInform"],
    signal: AbortSignal,
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        reset(stream, NGHTTP2_CANCEL);
        reject(signal.reason);
      };
      signal.addEventListener("abort", onAbort, { once: true });
      let settled = false;
      const settle = (): void => {
        settled = true;
        signal.removeEventListener("abort", onAbort);
      };
      stream.on("error", () => undefined);
      stream.on("headers", (headers, _flags, raw: unknown) => {
        const status = Number(headers[":status"]);
        if (status > 101 && status < 200) onInform(status, readFields(rawOf(raw)).fields);
      });
      stream.once("response", (headers, flags, raw: unknown) => {
        settle();
        resolve(answerFrom(stream, Number(headers[":status"]), flags, rawOf(raw), { method, upgrade }));
      });
      stream.once("close", () => {
        if (settled) return;
        settle();
        const refused = stream.rstCode === NGHTTP2_REFUSED_STREAM;
        const detail =
          stream.rstCode === NGHTTP2_NO_ERROR ? "the endpoint ended the stream without an answer" : `the endpoint reset the stream (code ${stream.rstCode})`;
        reject(upstreamReset(detail, { sent: !refused, refused }));
      });
    });
  }

  #count(stream: ClientHttp2Stream): void {
    this.#active++;
    this.#requests++;
    stream.once("close", () => {
      this.#active--;
    });
    if (this.#requests >= this.#limits.maxRequestsPerConnection) this.drain();
  }

  #retire(): void {
    if (this.#retired) return;
    this.#retired = true;
    this.#onUnusable();
  }
}

function answerFrom(
  stream: ClientHttp2Stream,
  status: number,
  flags: number,
  raw: readonly string[],
  { method, upgrade }: { method: string; upgrade: string | undefined },
): Answer {
  const { fields, contentLength } = readFields(raw);
  // It tells of a body that is not sent (RFC 9110 8.6).
  if (contentLength !== undefined && (method === "HEAD" || status === 304)) fields.append("content-length", String(contentLength));
  if ((flags & NGHTTP2_FLAG_END_STREAM) !== 0) {
    stream.resume();
    return { status, headers: fields, body: emptyBody };
  }
  const upgraded = upgrade !== undefined && status === 200;
  const failure = (): Error =>
    stream.rstCode === NGHTTP2_NO_ERROR && contentLength !== undefined
      ? garbage(`a body other than the ${contentLength} bytes announced`)
      : upstreamReset(`the endpoint broke the answer off (code ${stream.rstCode})`, { sent: true });
  const length = method === "HEAD" ? 0 : contentLength === 0 ? undefined : contentLength;
  return { status: upgraded ? 101 : status, headers: fields, body: new StreamBody(stream, length, { failure, onCancel: () => reset(stream, NGHTTP2_CANCEL) }) };
}

function rawOf(raw: unknown): readonly string[] {
  return Array.isArray(raw) ? (raw as string[]) : [];
}
