/** One stream with its end: whoever ends it first wins, and everything that hangs on it is let go. */
import { MeshError } from "@fairway/runtime";
import type { ServerDuplexStream, status } from "@grpc/grpc-js";

export interface OpenStream {
  readonly id: string;
  /** Address and port of the client's end. */
  readonly address: string;
  /** Aborts when the stream ended. */
  readonly gone: AbortSignal;
  end(code: status, details: string): void;
}

/** `onGone` runs once, before `gone` aborts. */
export function openStream<Request, Response>(id: string, raw: ServerDuplexStream<Request, Response>, onGone: (stream: OpenStream) => void): OpenStream {
  const gone = new AbortController();
  const finish = (): void => {
    if (gone.signal.aborted) return;
    onGone(stream);
    gone.abort(new MeshError("XDS_CLIENT_GONE", "the client closed its stream"));
  };
  const stream: OpenStream = {
    id,
    address: raw.getPeer(),
    gone: gone.signal,
    end(code, details) {
      if (gone.signal.aborted) return;
      finish();
      raw.emit("error", { code, details });
    },
  };
  raw.on("error", finish);
  raw.on("cancelled", finish);
  raw.on("close", finish);
  raw.on("end", () => {
    finish();
    raw.end();
  });
  return stream;
}
