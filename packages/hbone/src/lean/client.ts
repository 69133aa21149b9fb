/**
 * The client's side of a lean tunnel.
 * States: open → draining (GOAWAY either way: streams finish, none is opened) → gone.
 */
import type { Duplex } from "node:stream";
import { type Clock, MeshError } from "@fairway/runtime";
import type { ClientTunnel, ConnectRequest, TunnelSettings, TunnelStream } from "../engine.ts";
import { ConnectionFault, errorCodes, errorName } from "./error-codes.ts";
import { maxStreamId } from "./frames.ts";
import { type ReadAnswer, readAnswer, requestFields } from "./header-fields.ts";
import type { DecodedBlock } from "./hpack/decoder.ts";
import type { HeaderField } from "./hpack/static-table.ts";
import { maxInterimAnswers } from "./limits.ts";
import { Session, type SessionHost } from "./session.ts";
import type { LeanStream } from "./stream.ts";

interface Opened {
  readonly stream: TunnelStream;
  readonly baggage: string | undefined;
}

/** A CONNECT without its answer. */
interface Unanswered {
  interim: number;
  readonly onAnswer: (answer: ReadAnswer) => void;
}

/** Starts the client side over `transport`; resolves once the peer's SETTINGS arrived. Owns `transport` from here on. */
export function connectTunnel(clock: Clock, transport: Duplex, settings: TunnelSettings, { signal }: { signal: AbortSignal }): Promise<ClientTunnel> {
  if (signal.aborted) {
    transport.destroy();
    return Promise.reject(signal.reason);
  }
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      tunnel.destroy();
      reject(signal.reason);
    };
    const tunnel = new LeanClientTunnel(clock, transport, settings, () => {
      signal.removeEventListener("abort", onAbort);
      resolve(tunnel);
    });
    signal.addEventListener("abort", onAbort, { once: true });
    tunnel.closed.then((cause) => {
      signal.removeEventListener("abort", onAbort);
      reject(new MeshError("HBONE_TUNNEL_LOST", "the tunnel ended before the peer's HTTP/2 SETTINGS; does it speak HBONE?", { cause }));
    }, reject);
    tunnel.start();
  });
}

class LeanClientTunnel implements ClientTunnel, SessionHost {
  readonly side = "client";
  /** The server opens no streams: pushes are forbidden. */
  readonly lastStream = 0;
  readonly onReady: () => void;
  readonly #session: Session;
  readonly #maxStreams: number;
  readonly #unanswered = new Map<number, Unanswered>();
  #nextId = 1;

  constructor(clock: Clock, transport: Duplex, settings: TunnelSettings, onReady: () => void) {
    this.onReady = onReady;
    this.#maxStreams = settings.maxStreams;
    this.#session = new Session(clock, transport, settings, this);
  }

  start(): void {
    this.#session.connection.start();
  }

  get closed(): Promise<Error | undefined> {
    return this.#session.connection.closed;
  }

  get usable(): boolean {
    return this.#session.open && this.streams < this.#limit && this.#nextId <= maxStreamId;
  }

  get streams(): number {
    return this.#session.streams.size;
  }

  get #limit(): number {
    return Math.min(this.#maxStreams, this.#session.peer.maxStreams);
  }

  open(request: ConnectRequest, { signal }: { signal: AbortSignal }): Promise<Opened> {
    if (signal.aborted) return Promise.reject(signal.reason);
    if (!this.#session.open || this.#nextId > maxStreamId) {
      return Promise.reject(this.#session.lost() ?? new MeshError("HBONE_TUNNEL_LOST", "the tunnel is draining and takes no more streams"));
    }
    if (this.streams >= this.#limit) return Promise.reject(new MeshError("HBONE_TUNNEL_FULL", `the tunnel carries ${this.streams} streams, its limit`));
    let fields: HeaderField[];
    try {
      fields = requestFields(request);
    } catch (thrown) {
      return Promise.reject(MeshError.from(thrown, "HBONE_BAD_REQUEST"));
    }
    const id = this.#nextId;
    this.#nextId += 2;
    const stream = this.#session.addStream(id);
    this.#session.carrier.headers(id, this.#session.encoder.encode(fields), false);
    return this.#answer(stream, request, signal);
  }

  #answer(stream: LeanStream, request: ConnectRequest, signal: AbortSignal): Promise<Opened> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        this.#unanswered.delete(stream.id);
        signal.removeEventListener("abort", onAbort);
        stream.onUnanswered = undefined;
      };
      const onAbort = (): void => {
        settle();
        stream.reset();
        reject(signal.reason);
      };
      signal.addEventListener("abort", onAbort, { once: true });
      const onAnswer = ({ status, baggage }: ReadAnswer): void => {
        settle();
        if (status === 200) {
          resolve({ stream, baggage });
          return;
        }
        stream.reset();
        reject(new MeshError("HBONE_REFUSED", `the peer refused CONNECT ${request.authority} with status ${status}`, { details: { status } }));
      };
      stream.onUnanswered = () => {
        settle();
        reject(this.#unansweredError(stream));
      };
      this.#unanswered.set(stream.id, { interim: 0, onAnswer });
    });
  }

  /** Why a CONNECT closed without an answer. A refused stream was never processed, like one on a tunnel that died. */
  #unansweredError(stream: LeanStream): MeshError {
    const lost = this.#session.lost();
    if (lost !== undefined) return lost;
    const code = stream.resetCode;
    const reset = errorName(code ?? errorCodes.protocolError);
    const refused = code === errorCodes.refusedStream || code === errorCodes.enhanceYourCalm;
    return refused || !this.#session.open
      ? new MeshError("HBONE_TUNNEL_LOST", `the tunnel takes no more streams: ${reset}`, { details: { reset } })
      : new MeshError("HBONE_RESET", `the CONNECT was reset before an answer: ${reset}`, { details: { reset } });
  }

  drain(): void {
    if (!this.#session.connection.closing) this.#session.drain({ final: true });
  }

  destroy(error?: Error): void {
    this.#session.connection.destroy(error);
  }

  isIdle(id: number): boolean {
    return id % 2 === 0 || id >= this.#nextId;
  }

  mayReceive(id: number): boolean {
    return !this.#unanswered.has(id);
  }

  onHeaders(id: number, stream: LeanStream | undefined, { fields, tooLarge }: DecodedBlock, endStream: boolean): void {
    if (stream === undefined) {
      if (this.isIdle(id)) throw new ConnectionFault(errorCodes.protocolError, "HEADERS on a stream that was never opened");
      // The answer to a CONNECT that was given up.
      return;
    }
    const unanswered = this.#unanswered.get(id);
    // RFC 9113 8.5: a connected stream carries DATA and nothing else.
    const answer = unanswered === undefined || tooLarge ? undefined : readAnswer(fields);
    const interim = answer !== undefined && answer.status < 200;
    if (unanswered === undefined || answer === undefined || (interim && (endStream || unanswered.interim >= maxInterimAnswers))) {
      this.#session.resetStream(id, errorCodes.protocolError);
      return;
    }
    if (interim) {
      unanswered.interim += 1;
      return;
    }
    unanswered.onAnswer(answer);
    if (endStream && !stream.closed) stream.receiveEnd();
  }

  onGoaway(lastStream: number): void {
    this.#session.drain({ final: false });
    // The peer never saw these (RFC 9113 6.8).
    const lost = new MeshError("HBONE_TUNNEL_LOST", "the peer drained the tunnel before it saw the stream");
    for (const stream of [...this.#session.streams.values()]) if (stream.id > lastStream) stream.lose(lost);
    this.#session.drain({ final: true });
  }

  onPong(): void {}
}
