/** A message body in motion: pushed by whoever reads the wire, with back-pressure, into one reader. Nothing is buffered on the way. */
import type { HeaderFields } from "@fairway/model";

export interface Body {
  /** Bytes, when declared; 0: there are none, and no trailers; undefined: unknown. */
  readonly length: number | undefined;
  /** Starts the flow; once. The sink gets chunks and then exactly one `end` or `fail`. Must not be called after `cancel`. */
  flowInto(sink: BodySink): void;
  /** Nobody wants the rest (HTTP/2: RST_STREAM; HTTP/1: the connection is not used again). No call reaches the sink afterwards. Idempotent, harmless after the end. */
  cancel(reason: Error): void;
}

export interface BodySink {
  /** Takes the bytes over. False: hold the next until `onReady` is called. */
  write(bytes: Uint8Array): boolean;
  /** The whole body was delivered. */
  end(trailers: HeaderFields | undefined): void;
  /** The source broke off: what was written must never look complete. */
  fail(error: Error): void;
  /** Set by the body in `flowInto`; called by the sink when it takes more. */
  onReady: (() => void) | undefined;
}

/** A body without bytes. */
export const emptyBody: Body = {
  length: 0,
  flowInto: (sink) => sink.end(undefined),
  cancel: () => undefined,
};

/** A body that is known as a whole: local answers. */
export function textBody(text: string): Body {
  if (text === "") return emptyBody;
  const bytes = Buffer.from(text);
  return {
    length: bytes.length,
    flowInto: (sink) => {
      sink.write(bytes);
      sink.end(undefined);
    },
    cancel: () => undefined,
  };
}
