/** A body on its way into an HTTP/1 connection: framed here (RFC 9112 6, 7), counted, held to the length that was announced. */
import type { HeaderFields } from "@fairway/model";
import type { BodySink } from "../body.ts";
import { waypointError } from "../failure.ts";
import { isFieldValue, isToken, isTrailerField } from "../message-rules.ts";
import type { WireWriter } from "./wire.ts";

/** `none` is a body that must not be sent; `raw` ends with the connection. */
export type SendFraming = { readonly kind: "none" | "raw" | "chunked" } | { readonly kind: "length"; readonly length: number };

export interface SenderOwner {
  /** The body went out whole. */
  onSent(): void;
  /** It broke off: the message on the wire must not look complete. */
  onBroken(error: Error): void;
}

export class BodySender implements BodySink {
  onReady: (() => void) | undefined;
  /** Of content, handed to the connection so far. */
  sent = 0;
  readonly #framing: SendFraming;
  readonly #writer: WireWriter;
  readonly #owner: SenderOwner;
  readonly #trailers: boolean;
  #over = false;

  /** `trailers`: the receiver takes them. */
  constructor(framing: SendFraming, { writer, owner, trailers }: { writer: WireWriter; owner: SenderOwner; trailers: boolean }) {
    this.#framing = framing;
    this.#writer = writer;
    this.#owner = owner;
    this.#trailers = trailers;
  }

  get over(): boolean {
    return this.#over;
  }

  write(bytes: Uint8Array): boolean {
    if (this.#over || bytes.length === 0) return true;
    const writer = this.#writer;
    this.sent += bytes.length;
    switch (this.#framing.kind) {
      case "none":
        return true;
      case "length":
        if (this.sent > this.#framing.length) {
          this.fail(waypointError("WAYPOINT_BODY_LENGTH", `a body of ${this.#framing.length} bytes went on after them`));
          return true;
        }
        writer.bytes(bytes);
        // The receiver has all of it, and may act on that before the source says so.
        if (this.sent === this.#framing.length) {
          this.#over = true;
          this.#owner.onSent();
          return true;
        }
        break;
      case "raw":
        writer.bytes(bytes);
        break;
      case "chunked":
        writer.text(`${bytes.length.toString(16)}\r\n`);
        writer.bytes(bytes);
        writer.text("\r\n");
    }
    if (writer.roomy) return true;
    writer.onReady = this.onReady;
    return false;
  }

  end(trailers: HeaderFields | undefined): void {
    if (this.#over) return;
    if (this.#framing.kind === "length" && this.sent !== this.#framing.length) {
      this.fail(waypointError("WAYPOINT_BODY_LENGTH", `a body of ${this.#framing.length} bytes ended after ${this.sent}`));
      return;
    }
    this.#over = true;
    if (this.#framing.kind === "chunked") this.#writer.text(trailers === undefined || !this.#trailers ? "0\r\n\r\n" : `0\r\n${trailerText(trailers)}\r\n`);
    this.#owner.onSent();
  }

  fail(error: Error): void {
    if (this.#over) return;
    this.#over = true;
    this.#owner.onBroken(error);
  }

  /** What still comes is dropped. */
  abandon(): void {
    this.#over = true;
  }
}

function trailerText(trailers: HeaderFields): string {
  const { flat } = trailers;
  let text = "";
  for (let at = 0; at < flat.length; at += 2) {
    const name = flat[at] ?? "";
    const value = flat[at + 1] ?? "";
    if (isToken(name) && isTrailerField(name) && isFieldValue(value)) text += `${name}: ${value}\r\n`;
  }
  return text;
}
