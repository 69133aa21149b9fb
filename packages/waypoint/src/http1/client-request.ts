/**
 * One request on a connection to an endpoint, and the answer to it.
 * The request: going out → whole, or given up. The answer: awaited → head given → body over. Over when both are.
 */
import { randomBytes } from "node:crypto";
import { emptyBody } from "../body.ts";
import { waypointError } from "../failure.ts";
import type { Answer, HttpLimits, OutgoingRequest } from "../http-connection.ts";
import { announcesEmptyBody, garbage, upstreamReset } from "../message-rules.ts";
import { decoderOf, RawDecoder } from "./body-decoder.ts";
import { BodySender, type SenderOwner, type SendFraming } from "./body-sender.ts";
import type { ResponseMessage } from "./head.ts";
import { fieldLines, requestLines } from "./head-writer.ts";
import { responseFault } from "./header-block.ts";
import { type BodyOwner, ReceivedBody } from "./received-body.ts";
import { acceptOf } from "./server-exchange.ts";
import type { WireWriter } from "./wire.ts";

/** Informational answers before the final one; many are legal, endless ones are not. */
const maxInforms = 64;

export interface RequestOwner extends BodyOwner {
  readonly writer: WireWriter;
  /** The request can go no further: its body broke, or its signal aborted. */
  onRequestBroken(request: ClientRequest, error: Error): void;
  onProgress(request: ClientRequest): void;
  onUpgraded(request: ClientRequest): void;
}

export class ClientRequest implements SenderOwner {
  readonly request: OutgoingRequest;
  readonly answer: Promise<Answer>;
  /** The answer's body; undefined before its head, and where there is none. */
  received: ReceivedBody | undefined;
  /** The head of the final answer came. */
  answered = false;
  upgraded = false;
  /** Whether the answer leaves the connection fit for another request. */
  keepAlive = true;
  readonly #owner: RequestOwner;
  readonly #signal: AbortSignal;
  #resolve: (answer: Answer) => void = () => undefined;
  #reject: (error: unknown) => void = () => undefined;
  #sender: BodySender | undefined;
  /** Ours, where the client's side has no key of its own (RFC 8441 5). */
  #key: string | undefined;
  #informs = 0;
  #over = false;

  constructor(request: OutgoingRequest, { owner, signal }: { owner: RequestOwner; signal: AbortSignal }) {
    this.request = request;
    this.#owner = owner;
    this.#signal = signal;
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** Throws WAYPOINT_UNSENDABLE before a byte went out. */
  start(): void {
    const { head, body, upgrade } = this.request;
    const { writer } = this.#owner;
    const framing = this.#framing();
    let text = requestLines(head.method, head.path, head.authority) + fieldLines(head.headers);
    const trailers = head.headers.has("te");
    if (upgrade !== undefined) {
      text += `connection: upgrade\r\nupgrade: ${upgrade}\r\n`;
      if (!head.headers.has("sec-websocket-key")) {
        this.#key = randomBytes(16).toString("base64");
        text += `sec-websocket-key: ${this.#key}\r\n`;
      }
    } else if (trailers) text += "te: trailers\r\nconnection: te\r\n";
    if (framing.kind === "length") {
      if (framing.length > 0 || announcesEmptyBody(head.method)) text += `content-length: ${framing.length}\r\n`;
    } else if (framing.kind === "chunked") text += "transfer-encoding: chunked\r\n";
    writer.text(`${text}\r\n`);
    this.#sender = new BodySender(framing, { writer, owner: this, trailers: true });
    // The bytes of the other protocol wait until it is agreed on.
    if (framing.kind !== "raw") {
      if (body.length === 0) this.#sender.end(undefined);
      else body.flowInto(this.#sender);
    }
    writer.flush();
  }

  #framing(): SendFraming {
    const { body, upgrade } = this.request;
    if (upgrade !== undefined) return { kind: "raw" };
    return body.length === undefined ? { kind: "chunked" } : { kind: "length", length: body.length };
  }

  get requestSent(): boolean {
    return this.#sender?.over === true;
  }

  get over(): boolean {
    return this.#over;
  }

  /** A head of the answer arrived. Throws WAYPOINT_UPSTREAM_GARBAGE. */
  take(message: ResponseMessage, limits: HttpLimits): void {
    const { status, headers } = message;
    if (status === 101) {
      this.#takeUpgrade(message);
      return;
    }
    if (status < 200) {
      this.#informs += 1;
      if (this.#informs > maxInforms) throw garbage(`more than ${maxInforms} informational answers`);
      if (status !== 100) this.request.onInform(status, headers);
      return;
    }
    this.answered = true;
    this.keepAlive = message.keepAlive;
    const decoder = decoderOf(message.framing, limits, responseFault);
    if (decoder !== undefined) {
      this.received = new ReceivedBody(message.framing.kind === "length" ? message.framing.length : undefined, decoder, this.#owner);
    }
    if (this.request.upgrade !== undefined) {
      // Not agreed on: there is no other protocol, and no body in this one.
      this.#sender?.abandon();
      this.request.body.cancel(waypointError("WAYPOINT_UPGRADE_REFUSED", `the upstream answered ${status} to the upgrade`));
    }
    this.#resolve({ status, headers, body: this.received ?? emptyBody });
  }

  #takeUpgrade({ headers, upgrade }: ResponseMessage): void {
    if (this.request.upgrade === undefined || upgrade !== this.request.upgrade || this.#sender === undefined) {
      throw garbage("it switches to a protocol that was not asked for");
    }
    if (this.#key !== undefined) {
      if (headers.get("sec-websocket-accept") !== acceptOf(this.#key)) throw garbage("its sec-websocket-accept does not belong to the key");
      headers.delete("sec-websocket-accept");
    }
    this.answered = true;
    this.upgraded = true;
    this.keepAlive = false;
    this.received = new ReceivedBody(undefined, new RawDecoder(), this.#owner);
    this.#owner.onUpgraded(this);
    this.#resolve({ status: 101, headers, body: this.received });
    this.request.body.flowInto(this.#sender);
    this.#owner.writer.flush();
  }

  onSent(): void {
    this.#owner.onProgress(this);
  }

  onBroken(error: Error): void {
    this.#owner.onRequestBroken(this, error);
  }

  /** Both directions are whole, or the answer is and nobody wants the rest of the request. */
  finish(): void {
    if (this.#over) return;
    this.#settle();
    if (!this.requestSent) {
      this.#sender?.abandon();
      this.request.body.cancel(waypointError("WAYPOINT_ANSWERED_EARLY", "the upstream answered before the request's body ended"));
    }
  }

  /** Breaks it off: whoever waits for the answer, or reads it, learns why. */
  fail(error: Error): void {
    if (this.#over) return;
    this.#settle();
    if (!this.requestSent) {
      this.#sender?.abandon();
      this.request.body.cancel(error);
    }
    this.#reject(error);
    this.received?.fail(error);
  }

  #settle(): void {
    this.#over = true;
    this.#signal.removeEventListener("abort", this.#onAbort);
  }

  readonly #onAbort = (): void => {
    // It was over already, only not put away yet: whoever reads the last bytes aborts what belonged to them.
    if (this.answered && this.requestSent && (this.received === undefined || this.received.whole)) return;
    const reason: unknown = this.#signal.reason;
    this.#owner.onRequestBroken(this, reason instanceof Error ? reason : upstreamReset("the request was given up", { sent: true }, reason));
  };
}
