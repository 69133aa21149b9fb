/**
 * The client's side of a tunnel over node:http2.
 * States: open → draining (GOAWAY either way: streams finish, none is opened) → gone.
 */
import { type ClientHttp2Session, type ClientHttp2Stream, constants, connect as http2Connect, type IncomingHttpHeaders } from "node:http2";
import type { Duplex } from "node:stream";
import { type Clock, MeshError } from "@fairway/runtime";
import { isHeaderValue, isNetworkName, parseAuthority } from "./connect-request.ts";
import type { ClientTunnel, ConnectRequest, TunnelSettings, TunnelStream } from "./engine.ts";
import { keepAlive } from "./keepalive.ts";
import { breakOff, NodeTunnelStream, resetName, type StreamOwner } from "./node-http2-stream.ts";
import { maxHeaderPairs, maxInvalidFrames, maxSessionMegabytes, settingsTimeoutMs } from "./settings.ts";
import { UnblockedTransport } from "./unblocked-transport.ts";

const { NGHTTP2_CANCEL, NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM, NGHTTP2_ENHANCE_YOUR_CALM } = constants;

/** Starts the client side over `transport`; resolves once the peer's SETTINGS arrived. Owns `transport` from here on. */
export function connectTunnel(clock: Clock, transport: Duplex, settings: TunnelSettings, { signal }: { signal: AbortSignal }): Promise<ClientTunnel> {
  if (signal.aborted) {
    transport.destroy();
    return Promise.reject(signal.reason);
  }
  // Built apart because the type of the options lacks `maxSessionInvalidFrames`, which both sides honour.
  const options = {
    createConnection: () => new UnblockedTransport(transport),
    settings: {
      enablePush: false,
      initialWindowSize: settings.streamWindow,
      maxFrameSize: settings.frameSize,
      maxHeaderListSize: settings.maxHeaderBytes,
    },
    peerMaxConcurrentStreams: settings.maxStreams,
    maxReservedRemoteStreams: 0,
    maxHeaderListPairs: maxHeaderPairs,
    maxSessionMemory: maxSessionMegabytes,
    maxSessionInvalidFrames: maxInvalidFrames,
  };
  const session = http2Connect("http://tunnel.invalid", options);
  const tunnel = new NodeClientTunnel(clock, session, transport, settings);
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      timer[Symbol.dispose]();
      signal.removeEventListener("abort", onAbort);
    };
    const onAbort = (): void => {
      settle();
      tunnel.destroy();
      reject(signal.reason);
    };
    const timer = clock.schedule(settingsTimeoutMs, () => {
      settle();
      tunnel.destroy();
      reject(new MeshError("HBONE_TUNNEL_LOST", `the peer sent no HTTP/2 SETTINGS within ${settingsTimeoutMs} ms; does it speak HBONE?`));
    });
    signal.addEventListener("abort", onAbort, { once: true });
    session.once("remoteSettings", () => {
      settle();
      tunnel.start();
      resolve(tunnel);
    });
    tunnel.closed.then((cause) => {
      settle();
      reject(new MeshError("HBONE_TUNNEL_LOST", "the peer ended the connection before its HTTP/2 SETTINGS; does it speak HBONE?", { cause }));
    }, reject);
  });
}

class NodeClientTunnel implements ClientTunnel, StreamOwner {
  readonly side = "client";
  readonly closed: Promise<Error | undefined>;
  readonly #clock: Clock;
  readonly #session: ClientHttp2Session;
  readonly #transport: Duplex;
  readonly #settings: TunnelSettings;
  #streams = 0;
  #destroyed = false;
  #draining = false;
  #error: Error | undefined;
  #keepalive: Disposable | undefined;

  constructor(clock: Clock, session: ClientHttp2Session, transport: Duplex, settings: TunnelSettings) {
    this.#clock = clock;
    this.#session = session;
    this.#transport = transport;
    this.#settings = settings;
    session.on("error", (error: Error) => {
      if (!this.#destroyed) this.#error ??= error;
    });
    session.on("goaway", (code) => {
      this.#draining = true;
      if (code !== NGHTTP2_NO_ERROR) this.#error ??= new MeshError("HBONE_TUNNEL_LOST", `the peer ended the tunnel: ${resetName(code)}`);
    });
    // Pushed streams are refused by SETTINGS; a peer that sends one anyway is not served.
    session.on("stream", (stream) => stream.on("error", ignore).close(NGHTTP2_REFUSED_STREAM));
    session.once("connect", () => {
      if (!session.destroyed) session.setLocalWindowSize(settings.connectionWindow);
    });
    this.closed = new Promise((resolve) => {
      session.once("close", () => {
        this.#keepalive?.[Symbol.dispose]();
        resolve(this.#error);
      });
    });
  }

  start(): void {
    const { pingIntervalMs: intervalMs, pingTimeoutMs: timeoutMs } = this.#settings;
    this.#keepalive = keepAlive(this.#session, { clock: this.#clock, intervalMs, timeoutMs, onDead: (error) => this.destroy(error) });
  }

  get usable(): boolean {
    return !this.#draining && !this.#session.closed && !this.#gone && this.#streams < this.#limit;
  }

  get streams(): number {
    return this.#streams;
  }

  get #gone(): boolean {
    return this.#session.destroyed || this.#transport.destroyed;
  }

  get #limit(): number {
    return Math.min(this.#settings.maxStreams, this.#session.remoteSettings?.maxConcurrentStreams ?? this.#settings.maxStreams);
  }

  lost(): MeshError | undefined {
    return this.#gone ? tunnelLost(this.#error) : undefined;
  }

  open(request: ConnectRequest, { signal }: { signal: AbortSignal }): Promise<{ stream: TunnelStream; baggage: string | undefined }> {
    if (signal.aborted) return Promise.reject(signal.reason);
    if (this.#draining || this.#session.closed || this.#gone) return Promise.reject(tunnelLost(this.#error));
    if (this.#streams >= this.#limit) {
      return Promise.reject(new MeshError("HBONE_TUNNEL_FULL", `the tunnel carries ${this.#streams} streams, its limit`));
    }
    let stream: ClientHttp2Stream;
    try {
      stream = this.#session.request(requestHeaders(request), { endStream: false });
    } catch (thrown) {
      return Promise.reject(MeshError.from(thrown, "HBONE_TUNNEL_LOST"));
    }
    this.#streams += 1;
    stream.on("error", ignore);
    return this.#answer(stream, request, signal);
  }

  #answer(stream: ClientHttp2Stream, request: ConnectRequest, signal: AbortSignal): Promise<{ stream: TunnelStream; baggage: string | undefined }> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        breakOff(stream);
        reject(signal.reason);
      };
      signal.addEventListener("abort", onAbort, { once: true });
      stream.once("response", (headers: IncomingHttpHeaders & { ":status"?: number }) => {
        signal.removeEventListener("abort", onAbort);
        const status = headers[":status"];
        if (status === 200) {
          const { baggage } = headers;
          resolve({ stream: new NodeTunnelStream(stream, this), baggage: typeof baggage === "string" && isHeaderValue(baggage) ? baggage : undefined });
          return;
        }
        breakOff(stream);
        reject(new MeshError("HBONE_REFUSED", `the peer refused CONNECT ${request.authority} with status ${status}`, { details: { status } }));
      });
      stream.once("close", () => {
        this.#streams -= 1;
        signal.removeEventListener("abort", onAbort);
        reject(this.#unanswered(stream));
      });
    });
  }

  /** Why a CONNECT closed without an answer. A refused stream was never processed, like one on a tunnel that died. */
  #unanswered(stream: ClientHttp2Stream): MeshError {
    const lost = this.lost();
    if (lost !== undefined) return lost;
    const reset = resetName(stream.rstCode);
    const refused = stream.rstCode === NGHTTP2_REFUSED_STREAM || stream.rstCode === NGHTTP2_ENHANCE_YOUR_CALM;
    return refused || this.#draining
      ? new MeshError("HBONE_TUNNEL_LOST", `the tunnel takes no more streams: ${reset}`, { details: { reset } })
      : new MeshError("HBONE_RESET", `the peer reset the CONNECT before an answer: ${reset}`, { details: { reset } });
  }

  drain(): void {
    this.#draining = true;
    this.#session.close();
  }

  destroy(error?: Error): void {
    if (!this.#session.destroyed) {
      this.#error ??= error;
      this.#destroyed = true;
      this.#session.destroy(error ?? new MeshError("HBONE_TUNNEL_LOST", "the tunnel was ended here"), NGHTTP2_CANCEL);
    }
    // A session that was draining would wait for the peer's FIN; this is the abrupt end.
    setImmediate(() => this.#transport.destroy());
  }
}

function requestHeaders({ authority, baggage, forwarded, traceparent, forwardedNetwork }: ConnectRequest): Record<string, string> {
  if (parseAuthority(authority) === undefined) {
    throw new MeshError("HBONE_BAD_REQUEST", `${JSON.stringify(authority)} cannot be asked of a tunnel; expected ip:port or hostname:port`);
  }
  const headers: Record<string, string> = { ":method": "CONNECT", ":authority": authority };
  if (baggage !== undefined && isHeaderValue(baggage)) headers["baggage"] = baggage;
  if (forwarded !== undefined && isHeaderValue(forwarded)) headers["forwarded"] = forwarded;
  if (traceparent !== undefined && isHeaderValue(traceparent)) headers["traceparent"] = traceparent;
  if (forwardedNetwork !== undefined && isNetworkName(forwardedNetwork)) headers["x-forwarded-network"] = forwardedNetwork;
  return headers;
}

function tunnelLost(cause: Error | undefined): MeshError {
  return new MeshError("HBONE_TUNNEL_LOST", "the tunnel is gone", { cause });
}

/** Errors of a stream arrive a second time as its close, which is where they are read. */
function ignore(): void {}
