/**
 * One ztunnel on the ZDS socket (ztunnel contract 4.4): one request, one answer, never two under way. Anything said out of turn ends
 * the connection, because from then on no answer could be trusted to belong to its request.
 */
import { closeDescriptors, type NetworkNamespace, type SeqpacketConnection, type SeqpacketMessage } from "@fairway/linux";
import { decodeZdsHello, decodeZdsResponse, encodeZdsRequest, type ZdsRequest } from "@fairway/protocol";
import { type Clock, MeshError } from "@fairway/runtime";

/** For the hello, and for each write and its answer. */
export const answerDeadlineMs = 5_000;

interface Asked {
  readonly resolve: (message: SeqpacketMessage) => void;
  readonly reject: (reason: unknown) => void;
}

export class ZdsConnection implements Disposable {
  readonly id: number;
  readonly closed: Promise<MeshError | undefined>;
  readonly #connection: SeqpacketConnection;
  readonly #clock: Clock;
  #asked: Asked | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #failure: MeshError | undefined;

  private constructor(id: number, connection: SeqpacketConnection, clock: Clock) {
    this.id = id;
    this.#connection = connection;
    this.#clock = clock;
    this.closed = connection.closed.then((failure) => this.#failure ?? failure);
  }

  /** Waits for ztunnel's hello. Throws NODE_AGENT_ZDS_PROTOCOL or NODE_AGENT_ZDS_TIMEOUT, and the connection is closed then. */
  static async open(id: number, connection: SeqpacketConnection, clock: Clock): Promise<ZdsConnection> {
    const opened = new ZdsConnection(id, connection, clock);
    const hello = opened.#expect("hello");
    const reading = opened.#read();
    reading.catch(() => {});
    const message = await hello;
    try {
      decodeZdsHello(message.bytes);
    } catch (cause) {
      throw opened.#fail(
        new MeshError("NODE_AGENT_ZDS_PROTOCOL", "ztunnel's hello was not understood; do the versions of ztunnel and node agent match?", { cause }),
      );
    }
    return opened;
  }

  /**
   * Sends a request when its turn comes and waits for the answer. Throws NODE_AGENT_ZDS_REFUSED with ztunnel's words (the connection
   * lives), NODE_AGENT_ZDS_TIMEOUT or NODE_AGENT_ZDS_PROTOCOL (it does not), or NODE_AGENT_ZDS_CLOSED.
   */
  request(request: ZdsRequest, namespace?: NetworkNamespace): Promise<void> {
    const answered = this.#turn.then(() => this.#ask(request, namespace));
    this.#turn = answered.catch(() => {});
    return answered;
  }

  [Symbol.dispose](): void {
    this.#fail(new MeshError("NODE_AGENT_ZDS_CLOSED", "the node agent closed the connection to ztunnel"));
  }

  async #ask(request: ZdsRequest, namespace: NetworkNamespace | undefined): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    const bytes = encodeZdsRequest(request);
    const answer = this.#expect(request.kind);
    // It may fail while the request is still being sent; it is awaited below.
    answer.catch(() => {});
    try {
      await this.#connection.send(bytes, namespace === undefined ? [] : [namespace.fd], { signal: AbortSignal.timeout(answerDeadlineMs) });
    } catch (cause) {
      this.#fail(new MeshError("NODE_AGENT_ZDS_CLOSED", `ztunnel did not take a "${request.kind}" request`, { cause }));
    }
    const { bytes: answered } = await answer;
    let error: string;
    try {
      ({ error } = decodeZdsResponse(answered));
    } catch (cause) {
      throw this.#fail(new MeshError("NODE_AGENT_ZDS_PROTOCOL", `ztunnel's answer to "${request.kind}" was not understood`, { cause }));
    }
    if (error !== "") throw new MeshError("NODE_AGENT_ZDS_REFUSED", `ztunnel refused "${request.kind}": ${error}`);
  }

  /** The next message, within the deadline. */
  #expect(what: string): Promise<SeqpacketMessage> {
    return new Promise((resolve, reject) => {
      const timer = this.#clock.schedule(answerDeadlineMs, () => {
        this.#fail(new MeshError("NODE_AGENT_ZDS_TIMEOUT", `ztunnel did not answer "${what}" within ${answerDeadlineMs} ms; is it overloaded or stuck?`));
      });
      const settle = (): void => {
        timer[Symbol.dispose]();
        this.#asked = undefined;
      };
      this.#asked = {
        resolve: (message) => {
          settle();
          resolve(message);
        },
        reject: (reason) => {
          settle();
          reject(reason);
        },
      };
    });
  }

  async #read(): Promise<void> {
    const signal = new AbortController().signal;
    try {
      for await (const message of this.#connection.messages({ signal })) {
        if (message.fds.length > 0) {
          closeDescriptors(message.fds);
          this.#fail(new MeshError("NODE_AGENT_ZDS_PROTOCOL", "ztunnel sent a descriptor, which it never does"));
        } else if (this.#asked === undefined) {
          this.#fail(new MeshError("NODE_AGENT_ZDS_PROTOCOL", "ztunnel spoke without being asked"));
        } else this.#asked.resolve(message);
      }
      this.#fail(new MeshError("NODE_AGENT_ZDS_CLOSED", "ztunnel closed the connection"));
    } catch (cause) {
      this.#fail(new MeshError("NODE_AGENT_ZDS_CLOSED", "the connection to ztunnel broke", { cause }));
    }
  }

  /** The first failure is the one that counts. */
  #fail(failure: MeshError): MeshError {
    this.#failure ??= failure;
    this.#connection.close();
    this.#asked?.reject(this.#failure);
    return this.#failure;
  }
}
