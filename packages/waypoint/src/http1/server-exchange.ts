/**
 * One request on an HTTP/1 connection and its answer.
 * The request: received → its body over. The answer: none → head written → whole. Over when the answer is whole and the request is no more.
 */
import { createHash } from "node:crypto";
import type { HeaderFields, RequestHead } from "@fairway/model";
import { MeshError } from "@fairway/runtime";
import { type Body, emptyBody } from "../body.ts";
import { waypointError } from "../failure.ts";
import type { Answer, Delivery, IncomingRequest } from "../http-connection.ts";
import { isBodiless } from "../message-rules.ts";
import { BodySender, type SenderOwner, type SendFraming } from "./body-sender.ts";
import type { RequestMessage } from "./head.ts";
import { fieldLines, statusLine } from "./head-writer.ts";
import type { ReceivedBody } from "./received-body.ts";
import type { WireWriter } from "./wire.ts";

/** What the exchange asks of its connection. */
export interface ExchangeOwner {
  readonly writer: WireWriter;
  /** Whether another request may follow, as far as the connection knows. */
  readonly reusable: boolean;
  /** The head of the answer goes out now: gives the request's rest up, if nobody takes it, and tells whether the request is whole or still flows. */
  settleRequest(exchange: ServerExchange): boolean;
  onAnswered(exchange: ServerExchange): void;
  onAnswerBroken(exchange: ServerExchange, error: Error): void;
  onUpgraded(exchange: ServerExchange): void;
  /** There is no answer that HTTP could carry. */
  onUnanswerable(error: Error): void;
}

const webSocketGuid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

export class ServerExchange implements IncomingRequest, SenderOwner {
  readonly version = "http1";
  readonly head: RequestHead;
  readonly body: Body;
  readonly upgrade: string | undefined;
  onDone: ((outcome: Delivery) => void) | undefined;
  /** Undefined: there is none. */
  readonly received: ReceivedBody | undefined;
  /** After 101. */
  upgraded = false;
  /** Whether the connection may carry another request after this one. */
  keepAlive: boolean;
  #continues: boolean;
  readonly #message: RequestMessage;
  readonly #owner: ExchangeOwner;
  #answer: Answer | undefined;
  #sender: BodySender | undefined;
  #over = false;

  constructor(message: RequestMessage, received: ReceivedBody | undefined, owner: ExchangeOwner) {
    this.head = message.head;
    this.upgrade = message.upgrade;
    this.keepAlive = message.keepAlive;
    this.#continues = message.expectsContinue;
    this.#message = message;
    this.received = received;
    this.body = received ?? emptyBody;
    this.#owner = owner;
  }

  get answered(): boolean {
    return this.#answer !== undefined;
  }

  /** The answer went out whole. */
  get answerSent(): boolean {
    return this.#sender?.over === true;
  }

  get over(): boolean {
    return this.#over;
  }

  /** The client may send its body: somebody takes it (RFC 9110 10.1.1). */
  continue(): void {
    if (!this.#continues || this.answered) return;
    this.#continues = false;
    this.#owner.writer.text("HTTP/1.1 100 Continue\r\n\r\n");
  }

  /** The client waits for 100 and did not get it: whether it will send its body is not known. */
  get withholdsBody(): boolean {
    return this.#continues;
  }

  inform(status: number, headers: HeaderFields): void {
    if (this.answered || this.#over || this.#message.minor === 0 || status < 102 || status > 199) return;
    let text: string;
    try {
      text = `${statusLine(status)}${fieldLines(headers)}\r\n`;
    } catch {
      // A hint that cannot be sent is not sent; the answer is still to come.
      return;
    }
    this.#owner.writer.text(text);
    this.#owner.writer.flush();
  }

  respond(answer: Answer): void {
    if (this.#over || this.answered) {
      answer.body.cancel(waypointError("WAYPOINT_CLIENT_GONE", "the exchange is over; its answer has nowhere to go"));
      return;
    }
    if (answer.status < 200 ? answer.status !== 101 || this.upgrade === undefined : answer.status > 599) {
      const error = waypointError("WAYPOINT_UNSENDABLE", `${answer.status} is no status of a final answer`);
      answer.body.cancel(error);
      this.#owner.onUnanswerable(error);
      return;
    }
    let fields: string;
    try {
      fields = fieldLines(answer.headers);
    } catch (thrown) {
      answer.body.cancel(MeshError.from(thrown, "WAYPOINT_UNSENDABLE"));
      this.#send({ status: 502, headers: answer.headers, body: emptyBody }, "");
      return;
    }
    this.#send(answer, fields);
  }

  #send(answer: Answer, fields: string): void {
    const { writer } = this.#owner;
    const { status, body } = answer;
    const upgraded = status === 101;
    this.#answer = answer;
    // An echo takes the request's body only now.
    const whole = body === this.body || this.#owner.settleRequest(this);
    const framing = upgraded ? raw : this.#framing(answer);
    if (!upgraded && (!whole || !this.#owner.reusable || framing.kind === "raw")) this.keepAlive = false;
    const own = upgraded ? upgradeLines(this.head, answer.headers) : this.#ownLines(answer, framing);
    writer.text(`${statusLine(status)}${fields}${own}\r\n`);
    const sender = new BodySender(framing, { writer, owner: this, trailers: this.#message.takesTrailers || answer.headers.has("trailer") });
    this.#sender = sender;
    if (upgraded) {
      this.upgraded = true;
      this.#owner.onUpgraded(this);
    }
    if (framing.kind === "none") {
      if (body.length !== 0) body.cancel(waypointError("WAYPOINT_NO_BODY", `an answer ${status} to ${this.head.method} has no body`));
      sender.end(undefined);
    } else body.flowInto(sender);
    writer.flush();
  }

  #framing({ status, body }: Answer): SendFraming {
    if (isBodiless(this.head.method, status)) return none;
    if (body.length !== undefined) return { kind: "length", length: body.length };
    return this.#message.minor === 0 ? raw : chunked;
  }

  #ownLines({ status, headers, body }: Answer, framing: SendFraming): string {
    let text = "";
    if (framing.kind === "length") text = `content-length: ${framing.length}\r\n`;
    else if (framing.kind === "chunked") text = "transfer-encoding: chunked\r\n";
    else if (framing.kind === "none" && status !== 204 && status >= 200) {
      const announced = headers.get("content-length") ?? (body.length ? String(body.length) : undefined);
      if (announced !== undefined && /^[0-9]{1,15}$/.test(announced)) text = `content-length: ${announced}\r\n`;
    }
    if (!this.keepAlive) return `${text}connection: close\r\n`;
    return this.#message.minor === 0 ? `${text}connection: keep-alive\r\n` : text;
  }

  onSent(): void {
    this.#owner.onAnswered(this);
  }

  onBroken(error: Error): void {
    this.#owner.onAnswerBroken(this, error);
  }

  /** Ends it, once: nothing more goes either way. */
  finish(error: Error | undefined): void {
    if (this.#over) return;
    this.#over = true;
    const { received } = this;
    if (received !== undefined && !received.over) {
      received.fail(error ?? waypointError("WAYPOINT_ANSWERED_EARLY", "the request was answered before its body ended; the rest is not wanted"));
    }
    const sender = this.#sender;
    if (sender !== undefined && !sender.over) {
      sender.abandon();
      this.#answer?.body.cancel(error ?? waypointError("WAYPOINT_CLIENT_GONE", "the exchange is over"));
    }
    this.onDone?.({ bytesReceived: received?.received ?? 0, bytesSent: this.#sender?.sent ?? 0, error });
  }
}

const none: SendFraming = { kind: "none" };
const raw: SendFraming = { kind: "raw" };
const chunked: SendFraming = { kind: "chunked" };

/** What HTTP/1 says on switching protocols and HTTP/2 does not (RFC 6455 4.2.2, RFC 8441 5). */
function upgradeLines(head: RequestHead, answered: HeaderFields): string {
  const key = head.headers.get("sec-websocket-key");
  const accept = key === undefined || answered.has("sec-websocket-accept") ? "" : `sec-websocket-accept: ${acceptOf(key)}\r\n`;
  return `connection: upgrade\r\nupgrade: websocket\r\n${accept}`;
}

export function acceptOf(key: string): string {
  return createHash("sha1")
    .update(key + webSocketGuid)
    .digest("base64");
}
