/** The server's side of a tunnel over node:http2: each well-formed CONNECT becomes an exchange; everything else is answered here. */
import { constants, type IncomingHttpHeaders, performServerHandshake, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import { type Clock, MeshError, messageOf } from "@fairway/runtime";
import { isHeaderValue, isNetworkName, notAsked, parseAuthority } from "./connect-request.ts";
import type { ConnectExchange, ConnectRequest, ServerTunnel, TunnelSettings, TunnelStream } from "./engine.ts";
import { keepAlive } from "./keepalive.ts";
import { NodeTunnelStream, resetName, type StreamOwner } from "./node-http2-stream.ts";
import { maxHeaderPairs, maxInvalidFrames, maxRefusedStreams, maxSessionMegabytes, resetBurst, resetRate } from "./settings.ts";
import { UnblockedTransport } from "./unblocked-transport.ts";

const { NGHTTP2_CANCEL, NGHTTP2_INTERNAL_ERROR, NGHTTP2_NO_ERROR } = constants;
/** Headers of an answer carry no date; the option is missing from its type, hence the constants. */
const answerWithBody = { endStream: false, sendDate: false };
const answerWithoutBody = { endStream: true, sendDate: false };

type OnConnect = (exchange: ConnectExchange) => void;
type OnRefused = (why: MeshError) => void;

/** Starts the server side over `transport`, which it owns from here on. */
export function serveTunnel(clock: Clock, transport: Duplex, settings: TunnelSettings, onConnect: OnConnect, onRefused?: OnRefused): ServerTunnel {
  const session = performServerHandshake(transport instanceof Socket ? transport : new UnblockedTransport(transport), {
    settings: {
      initialWindowSize: settings.streamWindow,
      maxFrameSize: settings.frameSize,
      maxHeaderListSize: settings.maxHeaderBytes,
      maxConcurrentStreams: settings.maxStreams,
    },
    maxHeaderListPairs: maxHeaderPairs,
    maxSessionMemory: maxSessionMegabytes,
    maxSessionInvalidFrames: maxInvalidFrames,
    maxSessionRejectedStreams: maxRefusedStreams,
    streamResetBurst: resetBurst,
    streamResetRate: resetRate,
  });
  const tunnel = new NodeServerTunnel(clock, session, transport, settings, { onConnect, onRefused });
  // node:http2 waits for `secureConnect`, which a TLSSocket made by hand for the server's side never emits.
  if (transport instanceof TLSSocket && transport.getPeerFinished() !== undefined) transport.emit("secureConnect");
  return tunnel;
}

class NodeServerTunnel implements ServerTunnel, StreamOwner {
  readonly side = "server";
  readonly closed: Promise<Error | undefined>;
  readonly #session: ServerHttp2Session;
  readonly #transport: Duplex;
  readonly #onConnect: OnConnect;
  readonly #onRefused: OnRefused | undefined;
  readonly #keepalive: Disposable;
  #streams = 0;
  #destroyed = false;
  #error: Error | undefined;

  constructor(
    clock: Clock,
    session: ServerHttp2Session,
    transport: Duplex,
    settings: TunnelSettings,
    heard: { onConnect: OnConnect; onRefused: OnRefused | undefined },
  ) {
    this.#session = session;
    this.#transport = transport;
    this.#onConnect = heard.onConnect;
    this.#onRefused = heard.onRefused;
    session.on("error", (error: Error) => {
      if (!this.#destroyed) this.#error ??= error;
    });
    session.on("goaway", (code) => {
      if (code !== NGHTTP2_NO_ERROR) this.#error ??= new MeshError("HBONE_TUNNEL_LOST", `the peer ended the tunnel: ${resetName(code)}`);
    });
    session.on("stream", this.#onStream);
    const { pingIntervalMs: intervalMs, pingTimeoutMs: timeoutMs } = settings;
    this.#keepalive = keepAlive(session, { clock, intervalMs, timeoutMs, onDead: (error) => this.destroy(error) });
    this.closed = new Promise((resolve) => {
      session.once("close", () => {
        this.#keepalive[Symbol.dispose]();
        resolve(this.#error);
      });
    });
    session.once("connect", () => {
      if (!session.destroyed) session.setLocalWindowSize(settings.connectionWindow);
    });
  }

  get streams(): number {
    return this.#streams;
  }

  lost(): MeshError | undefined {
    if (!this.#session.destroyed && !this.#transport.destroyed) return undefined;
    return new MeshError("HBONE_TUNNEL_LOST", "the tunnel is gone", { cause: this.#error });
  }

  readonly #onStream = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void => {
    // Errors of a stream arrive a second time as its close, which is where they are read.
    stream.on("error", () => {});
    if (stream.destroyed) return;
    this.#streams += 1;
    stream.once("close", () => {
      this.#streams -= 1;
    });
    const exchange = new NodeConnectExchange(stream, this, readRequest(headers));
    const method = headers[":method"] ?? "";
    if (method !== "CONNECT" || parseAuthority(exchange.request.authority) === undefined) {
      exchange.reject(400);
      this.#onRefused?.(notAsked(method, exchange.request.authority));
      return;
    }
    try {
      this.#onConnect(exchange);
    } catch (thrown) {
      process.emitWarning(`a CONNECT handler threw: ${messageOf(thrown)}`);
      stream.close(NGHTTP2_INTERNAL_ERROR);
    }
  };

  drain(): void {
    // One GOAWAY with the last stream seen, not the two of RFC 9113 6.8: node:http2 serves nothing new after the first, whatever it promised.
    this.#session.close();
  }

  destroy(error?: Error): void {
    if (!this.#session.destroyed) {
      this.#error ??= error;
      this.#destroyed = true;
      this.#session.destroy(error ?? new MeshError("HBONE_TUNNEL_LOST", "the tunnel was ended here"), NGHTTP2_NO_ERROR);
    }
    // A session that was draining would wait for the peer's FIN; this is the abrupt end.
    setImmediate(() => this.#transport.destroy());
  }
}

class NodeConnectExchange implements ConnectExchange {
  readonly request: ConnectRequest;
  readonly #stream: ServerHttp2Stream;
  readonly #owner: StreamOwner;
  #answered = false;
  #cancelled: AbortController | undefined;

  constructor(stream: ServerHttp2Stream, owner: StreamOwner, request: ConnectRequest) {
    this.#stream = stream;
    this.#owner = owner;
    this.request = request;
  }

  accept({ baggage }: { baggage?: string | undefined }): TunnelStream {
    this.#answer();
    const sendable = baggage !== undefined && isHeaderValue(baggage);
    if (this.#open) this.#stream.respond(sendable ? { ":status": 200, baggage } : { ":status": 200 }, answerWithBody);
    return new NodeTunnelStream(this.#stream, this.#owner);
  }

  reject(status: 400 | 401 | 503): void {
    this.#answer();
    if (!this.#open) return;
    this.#stream.respond({ ":status": status }, answerWithoutBody);
    this.#stream.close(NGHTTP2_NO_ERROR);
  }

  get cancelled(): AbortSignal {
    this.#cancelled ??= this.#watch();
    return this.#cancelled.signal;
  }

  get #open(): boolean {
    return !this.#stream.destroyed && !this.#stream.closed;
  }

  #answer(): void {
    if (this.#answered) throw new MeshError("HBONE_ANSWERED_TWICE", `CONNECT ${this.request.authority} was answered before`);
    this.#answered = true;
  }

  #watch(): AbortController {
    const controller = new AbortController();
    const abort = (): void => {
      if (this.#answered) return;
      const reset = resetName(this.#stream.rstCode ?? NGHTTP2_CANCEL);
      controller.abort(new MeshError("HBONE_CANCELLED", `the client gave up before the answer: ${reset}`, { details: { reset } }));
    };
    if (this.#open) this.#stream.once("aborted", abort).once("close", abort);
    else abort();
    return controller;
  }
}

function readRequest(headers: IncomingHttpHeaders): ConnectRequest {
  return {
    authority: headers[":authority"] ?? "",
    baggage: single(headers["baggage"]),
    forwarded: single(headers["forwarded"]),
    traceparent: single(headers["traceparent"]),
    forwardedNetwork: single(headers["x-forwarded-network"], isNetworkName),
  };
}

/** Repeated headers come joined by a comma, which is what baggage asks for. */
function single(value: string | string[] | undefined, isValid = isHeaderValue): string | undefined {
  const text = Array.isArray(value) ? value.join(",") : value;
  return text !== undefined && isValid(text) ? text : undefined;
}
