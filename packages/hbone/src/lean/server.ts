/** The server's side of a lean tunnel: each well-formed CONNECT becomes an exchange; everything else is answered here. */
import type { Duplex } from "node:stream";
import { type Clock, MeshError, messageOf } from "@fairway/runtime";
import { notAsked } from "../connect-request.ts";
import type { ConnectExchange, ConnectRequest, ServerTunnel, TunnelSettings, TunnelStream } from "../engine.ts";
import { ConnectionFault, errorCodes, errorName } from "./error-codes.ts";
import { maxStreamId } from "./frames.ts";
import { answerFields, type ReadRequest, readRequest } from "./header-fields.ts";
import type { DecodedBlock } from "./hpack/decoder.ts";
import { lingerMs } from "./limits.ts";
import { Session, type SessionHost } from "./session.ts";
import type { LeanStream } from "./stream.ts";

type OnConnect = (exchange: ConnectExchange) => void;
type OnRefused = (why: MeshError) => void;

/** The PING between the two GOAWAYs of a drain; keepalives have other bytes. */
const drainPing: Buffer = Buffer.from("draining", "latin1");

/** Starts the server side over `transport`, which it owns from here on. */
export function serveTunnel(clock: Clock, transport: Duplex, settings: TunnelSettings, onConnect: OnConnect, onRefused?: OnRefused): ServerTunnel {
  const tunnel = new LeanServerTunnel(clock, transport, settings, { onConnect, onRefused });
  tunnel.start();
  return tunnel;
}

class LeanServerTunnel implements ServerTunnel, SessionHost {
  readonly side = "server";
  readonly #clock: Clock;
  readonly #session: Session;
  readonly #maxStreams: number;
  readonly #onConnect: OnConnect;
  readonly #onRefused: OnRefused | undefined;
  #lastStream = 0;
  /** Draining: "announced" by the first GOAWAY, "final" once the second said which streams were seen (RFC 9113 6.8). */
  #drain: "no" | "announced" | "final" = "no";
  #drainTimer: Disposable | undefined;

  constructor(clock: Clock, transport: Duplex, settings: TunnelSettings, heard: { onConnect: OnConnect; onRefused: OnRefused | undefined }) {
    this.#clock = clock;
    this.#maxStreams = settings.maxStreams;
    this.#onConnect = heard.onConnect;
    this.#onRefused = heard.onRefused;
    this.#session = new Session(clock, transport, settings, this);
  }

  start(): void {
    this.#session.connection.start();
  }

  get closed(): Promise<Error | undefined> {
    return this.#session.connection.closed;
  }

  get streams(): number {
    return this.#session.streams.size;
  }

  get lastStream(): number {
    return this.#lastStream;
  }

  drain(): void {
    const { connection } = this.#session;
    if (this.#drain !== "no" || connection.closing) return;
    this.#drain = "announced";
    connection.goaway(maxStreamId, errorCodes.noError);
    connection.ping(drainPing);
    this.#session.drain({ final: false });
    this.#drainTimer = this.#clock.schedule(lingerMs, this.#finishDrain);
  }

  destroy(error?: Error): void {
    this.#drainTimer?.[Symbol.dispose]();
    this.#session.connection.destroy(error);
  }

  isIdle(id: number): boolean {
    return id % 2 === 0 || (id > this.#lastStream && this.#drain !== "final");
  }

  mayReceive(): boolean {
    return true;
  }

  onHeaders(id: number, open: LeanStream | undefined, { fields, tooLarge }: DecodedBlock, endStream: boolean): void {
    if (id % 2 === 0) throw new ConnectionFault(errorCodes.protocolError, "a client opened an even stream");
    if (open !== undefined) {
      // RFC 9113 8.5: a connected stream carries DATA and nothing else.
      this.#session.resetStream(id, errorCodes.protocolError);
      return;
    }
    if (id <= this.#lastStream) {
      if (this.#session.wasResetHere(id)) return;
      throw new ConnectionFault(errorCodes.streamClosed, "HEADERS on a closed stream");
    }
    // The final GOAWAY said that this one was not seen.
    if (this.#drain === "final") return;
    this.#lastStream = id;
    const read = tooLarge ? undefined : readRequest(fields);
    if (this.streams >= this.#maxStreams) this.#session.refuseStream(id);
    else if (read === undefined) this.#session.resetStream(id, errorCodes.enhanceYourCalm);
    else if (read.kind === "malformed") this.#session.resetStream(id, errorCodes.protocolError);
    else this.#onRequest(id, read, endStream);
  }

  #onRequest(id: number, read: Exclude<ReadRequest, { kind: "malformed" }>, endStream: boolean): void {
    const stream = this.#session.addStream(id);
    if (endStream) stream.receiveEnd();
    const exchange = new LeanConnectExchange(stream, this.#session, read.request);
    if (read.kind === "refused") {
      exchange.reject(400);
      this.#onRefused?.(notAsked(read.method, read.request.authority));
      return;
    }
    try {
      this.#onConnect(exchange);
    } catch (thrown) {
      process.emitWarning(`a CONNECT handler threw: ${messageOf(thrown)}`);
      stream.abort(errorCodes.internalError);
    }
  }

  onReady(): void {}

  onGoaway(): void {
    // The client opens nothing more; there is nothing left to announce.
    if (this.#drain === "no") this.#session.drain({ final: true });
  }

  onPong(payload: Buffer): void {
    if (this.#drain === "announced" && payload.equals(drainPing)) this.#finishDrain();
  }

  readonly #finishDrain = (): void => {
    this.#drainTimer?.[Symbol.dispose]();
    if (this.#drain !== "announced" || this.#session.connection.closing) return;
    this.#drain = "final";
    this.#session.connection.goaway(this.#lastStream, errorCodes.noError);
    this.#session.drain({ final: true });
  };
}

class LeanConnectExchange implements ConnectExchange {
  readonly request: ConnectRequest;
  readonly #stream: LeanStream;
  readonly #session: Session;
  #answered = false;
  #cancelled: AbortController | undefined;

  constructor(stream: LeanStream, session: Session, request: ConnectRequest) {
    this.#stream = stream;
    this.#session = session;
    this.request = request;
    stream.onUnanswered = this.#onClosed;
  }

  accept({ baggage }: { baggage?: string | undefined }): TunnelStream {
    this.#answer();
    if (!this.#stream.closed) this.#session.carrier.headers(this.#stream.id, this.#session.encoder.encode(answerFields(200, baggage)), false);
    return this.#stream;
  }

  reject(status: 400 | 401 | 503): void {
    this.#answer();
    if (this.#stream.closed) return;
    this.#session.carrier.headers(this.#stream.id, this.#session.encoder.encode(answerFields(status, undefined)), true);
    this.#stream.endedByHeaders();
  }

  get cancelled(): AbortSignal {
    if (this.#cancelled === undefined) {
      this.#cancelled = new AbortController();
      if (this.#stream.closed && !this.#answered) this.#onClosed();
    }
    return this.#cancelled.signal;
  }

  #answer(): void {
    if (this.#answered) throw new MeshError("HBONE_ANSWERED_TWICE", `CONNECT ${this.request.authority} was answered before`);
    this.#answered = true;
    this.#stream.onUnanswered = undefined;
  }

  readonly #onClosed = (): void => {
    // Nobody will ever read what came before the answer.
    this.#stream.discard();
    const reset = errorName(this.#stream.resetCode ?? errorCodes.cancel);
    this.#cancelled?.abort(new MeshError("HBONE_CANCELLED", `the client gave up before the answer: ${reset}`, { details: { reset } }));
  };
}
