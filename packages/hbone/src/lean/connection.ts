/**
 * The life of a lean tunnel's connection: greeting, handshake timeout, keepalive, and its ends.
 * States: open → closing (our GOAWAY and FIN are out, what arrives is ignored) → gone (the transport is closed).
 */
import type { Duplex } from "node:stream";
import { type Clock, MeshError } from "@fairway/runtime";
import type { TunnelSettings } from "../engine.ts";
import { settingsTimeoutMs } from "../settings.ts";
import { noteBuffer } from "../young-generation.ts";
import { Carrier } from "./carrier.ts";
import { ConnectionFault, errorCodes } from "./error-codes.ts";
import { clientPreface, frameTypes, type Setting, settingIds, settingsPayload, uint32 } from "./frames.ts";
import { Keepalive } from "./keepalive.ts";
import { acknowledgeTimeoutMs, lingerMs } from "./limits.ts";

/** What speaks over the connection. */
export interface Speaker {
  readonly side: "client" | "server";
  /** Streams are open, or a frame is half received: an end now is no good end. */
  readonly inUse: boolean;
  /** What our GOAWAY says. */
  readonly lastStream: number;
  /** Received bytes; throws what ends the connection. */
  read(chunk: Buffer): void;
  /** The connection is closing; open streams are lost. */
  onClosing(lost: MeshError): void;
}

export class Connection {
  /** Settles when the transport is closed, with the error that ended it, if one did. */
  readonly closed: Promise<Error | undefined>;
  readonly carrier: Carrier;
  readonly #clock: Clock;
  readonly #transport: Duplex;
  readonly #speaker: Speaker;
  readonly #keepalive: Keepalive;
  readonly #gone = Promise.withResolvers<Error | undefined>();
  #handshakeTimer: Disposable;
  #lingerTimer: Disposable | undefined;
  #closing = false;
  #error: Error | undefined;

  constructor(clock: Clock, transport: Duplex, settings: TunnelSettings, speaker: Speaker) {
    this.#clock = clock;
    this.#transport = transport;
    this.#speaker = speaker;
    this.carrier = new Carrier({ transport, connectionWindow: settings.connectionWindow, onFault: this.#onFault });
    this.closed = this.#gone.promise;
    transport.once("close", this.#onClose);
    // Stays for good: a late error of the transport must not become an uncaught exception.
    transport.on("error", (error: Error) => this.fail(error));
    this.#handshakeTimer = clock.schedule(settingsTimeoutMs, () => this.#onHandshakeTimeout("sent its SETTINGS"));
    const { pingIntervalMs: intervalMs, pingTimeoutMs: timeoutMs } = settings;
    this.#keepalive = new Keepalive({ clock, intervalMs, timeoutMs, send: this.#onPingDue, onDead: (error) => this.destroy(error) });
    this.#greet(settings);
  }

  /** Reading starts apart from construction, when whoever listens is complete. */
  start(): void {
    this.#transport.once("end", () => this.#onEnd());
    this.#transport.on("data", this.#onBytes);
    if (!this.#transport.destroyed) return;
    this.fail(new MeshError("HBONE_TUNNEL_LOST", "the connection was closed before the tunnel began"));
    // Its `close` may have been and will not come again.
    if (this.#transport.closed) this.#onClose();
  }

  get closing(): boolean {
    return this.#closing || this.#transport.destroyed;
  }

  /** Why the connection is gone; undefined while it lives. */
  lost(): MeshError | undefined {
    return this.closing ? new MeshError("HBONE_TUNNEL_LOST", "the tunnel is gone", { cause: this.#error }) : undefined;
  }

  /** The peer's SETTINGS arrived; its acknowledgement of ours is due next. */
  onPeerSettings(): void {
    this.#handshakeTimer[Symbol.dispose]();
    this.#handshakeTimer = this.#clock.schedule(acknowledgeTimeoutMs, () => this.#onHandshakeTimeout("acknowledged our SETTINGS"));
  }

  onAcknowledged(): void {
    this.#handshakeTimer[Symbol.dispose]();
  }

  onPong(payload: Buffer): void {
    this.#keepalive.onAnswer(payload);
  }

  ping(payload: Buffer): void {
    this.carrier.frame(frameTypes.ping, 0, 0, payload);
  }

  goaway(lastStream: number, code: number): void {
    this.carrier.frame(frameTypes.goaway, 0, 0, uint32(lastStream, code));
  }

  /** The good end: nothing is open any more. Waits a while for the peer to close its side. */
  finish(): void {
    if (!this.#closing) this.#close(errorCodes.noError);
  }

  /** The bad end: GOAWAY with the code of `error`, then the transport, as soon as that is out. */
  fail(error: Error | undefined): void {
    if (this.#closing) return;
    this.#error = error;
    this.#close(error instanceof ConnectionFault ? error.http2Code : errorCodes.noError);
    if (this.#transport.writableFinished) this.#transport.destroy();
    else this.#transport.once("finish", () => setImmediate(() => this.#transport.destroy()));
  }

  /** Ends everything now; what is still unsent had its chance. */
  destroy(error?: Error): void {
    this.fail(error);
    setImmediate(() => this.#transport.destroy());
  }

  #close(code: number): void {
    this.goaway(this.#speaker.lastStream, code);
    this.carrier.stop();
    this.#closing = true;
    this.#handshakeTimer[Symbol.dispose]();
    this.#keepalive[Symbol.dispose]();
    this.#lingerTimer = this.#clock.schedule(lingerMs, () => this.#transport.destroy());
    this.#speaker.onClosing(new MeshError("HBONE_TUNNEL_LOST", "the tunnel is gone", { cause: this.#error }));
    this.#transport.end();
  }

  #greet({ streamWindow, frameSize, maxHeaderBytes, maxStreams }: TunnelSettings): void {
    const { side } = this.#speaker;
    const settings: Setting[] = [
      [settingIds.headerTableSize, 0],
      [settingIds.initialWindowSize, streamWindow],
      [settingIds.maxFrameSize, frameSize],
      [settingIds.maxHeaderListSize, maxHeaderBytes],
      side === "server" ? [settingIds.maxConcurrentStreams, maxStreams] : [settingIds.enablePush, 0],
    ];
    if (side === "client") this.carrier.outbox.raw(clientPreface);
    this.carrier.frame(frameTypes.settings, 0, 0, settingsPayload(settings));
    this.carrier.openConnectionWindow();
  }

  readonly #onBytes = (chunk: Buffer): void => {
    noteBuffer(chunk.length);
    if (this.#closing) return;
    try {
      this.#speaker.read(chunk);
    } catch (thrown) {
      this.#onFault(thrown);
    }
  };

  readonly #onFault = (thrown: unknown): void => {
    this.fail(MeshError.from(thrown, "HBONE_INTERNAL"));
  };

  #onEnd(): void {
    this.fail(this.#speaker.inUse ? new MeshError("HBONE_TUNNEL_LOST", "the connection was closed while it was in use") : undefined);
  }

  readonly #onClose = (): void => {
    this.#onEnd();
    this.#lingerTimer?.[Symbol.dispose]();
    this.#gone.resolve(this.#error);
  };

  #onHandshakeTimeout(due: string): void {
    this.fail(new ConnectionFault(errorCodes.settingsTimeout, `the peer has not ${due}; does it speak HBONE?`));
  }

  readonly #onPingDue = (payload: Buffer): void => {
    this.carrier.outbox.shrink();
    this.ping(payload);
  };
}
