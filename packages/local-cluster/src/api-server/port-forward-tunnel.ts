/**
 * `kubectl port-forward` as kubectl 1.31 and later do it: SPDY tunnelled in one WebSocket. Each forwarded connection is a pair of
 * streams of one `requestid`: `streamtype: error` first, whose content is a message when the dial fails, then `streamtype: data`.
 */
import type { Duplex } from "node:stream";
import { MeshError, messageOf } from "@fairway/runtime";
import type { SessionOptions } from "./exec-session.ts";
import { SpdyConnection, type SpdyStream } from "./spdy-connection.ts";

export const tunnelProtocol = "SPDY/3.1+portforward.k8s.io";

/** What the client may send to one connection before its peer takes it; beyond, the whole tunnel waits. */
const maxPendingBytes = 1024 * 1024;

interface Forwarded {
  readonly error: SpdyStream | undefined;
  readonly pending: Buffer[];
  connection: Duplex | undefined;
  ended: boolean;
}

export async function runTunnel({ client, info, gateway, signal }: SessionOptions): Promise<void> {
  const gone = new AbortController();
  const closed = new Promise<void>((resolve) => client.once("close", () => resolve()));
  client.once("close", () => gone.abort(new MeshError("LOCAL_CLUSTER_API_CLIENT_GONE", "the client closed the connection")));
  const ending = AbortSignal.any([signal, gone.signal]);
  ending.addEventListener("abort", () => client.terminate(), { once: true });
  const errors = new Map<string, SpdyStream>();
  const forwarded = new Map<number, Forwarded>();

  const open = async (stream: SpdyStream, entry: Forwarded): Promise<void> => {
    const port = Number(stream.headers.get("port"));
    try {
      if (!Number.isInteger(port) || port < 1 || port > 65_535)
        throw new MeshError("LOCAL_CLUSTER_API_PORT", "the port to forward must be between 1 and 65535");
      const connection = await gateway.dial({ namespace: info.namespace, pod: info.name, port }, { signal: ending });
      // The client may have given the stream up while the dial was under way.
      if (ending.aborted || forwarded.get(stream.id) !== entry) {
        connection.destroy();
        return;
      }
      entry.connection = connection;
      attach(connection, stream, entry, forwarded);
      for (const chunk of entry.pending.splice(0)) connection.write(chunk);
      if (entry.ended) connection.end();
    } catch (thrown) {
      forwarded.delete(stream.id);
      entry.error?.write(Buffer.from(`unable to forward port ${port} of pod ${info.namespace}/${info.name}: ${messageOf(thrown)}`));
      entry.error?.end();
      stream.end();
    }
  };

  using spdy = new SpdyConnection(
    (bytes, sent) => {
      if (client.readyState === client.OPEN) client.send(bytes, () => sent?.());
    },
    {
      opened: (stream) => {
        const request = stream.headers.get("requestid") ?? "";
        if (stream.headers.get("streamtype") === "error") errors.set(request, stream);
        else if (stream.headers.get("streamtype") === "data") {
          const entry: Forwarded = { error: errors.get(request), pending: [], connection: undefined, ended: false };
          errors.delete(request);
          forwarded.set(stream.id, entry);
          // `open` never rejects: a failure is told to the client on the error stream.
          void open(stream, entry);
        } else stream.end();
      },
      data: (stream, chunk) => {
        const entry = forwarded.get(stream.id);
        if (entry === undefined) return;
        if (entry.connection === undefined) {
          entry.pending.push(chunk);
          if (entry.pending.reduce((sum, item) => sum + item.length, 0) > maxPendingBytes) client.terminate();
        } else if (!entry.connection.write(chunk) && entry.connection.writableLength > maxPendingBytes) {
          client.pause();
          entry.connection.once("drain", () => client.resume());
          entry.connection.once("close", () => client.resume());
        }
      },
      ended: (stream) => {
        const entry = forwarded.get(stream.id);
        if (entry === undefined) return;
        entry.ended = true;
        entry.connection?.end();
      },
      reset: (stream) => {
        const entry = forwarded.get(stream.id);
        forwarded.delete(stream.id);
        entry?.connection?.destroy();
      },
    },
  );
  // Frames are handled strictly one after another: header blocks share one compression state.
  let queue = Promise.resolve();
  client.on("message", (data) => {
    const bytes = Buffer.isBuffer(data) ? data : Buffer.from(data instanceof ArrayBuffer ? new Uint8Array(data) : Buffer.concat(data));
    queue = queue.then(() => spdy.receive(bytes)).catch((thrown: unknown) => client.close(1002, messageOf(thrown).slice(0, 120)));
  });
  await closed;
  await queue;
  for (const { connection } of forwarded.values()) connection?.destroy();
}

function attach(connection: Duplex, stream: SpdyStream, entry: Forwarded, forwarded: Map<number, Forwarded>): void {
  connection.on("error", () => connection.destroy());
  connection.on("data", (chunk: Buffer) => {
    connection.pause();
    stream.write(chunk, () => connection.resume());
  });
  // A dialled socket arrives paused, and a listener alone does not start one that was paused.
  connection.resume();
  let finished = false;
  const finish = (): void => {
    if (finished) return;
    finished = true;
    stream.end();
    entry.error?.end();
  };
  connection.once("end", finish);
  connection.once("close", () => {
    finish();
    forwarded.delete(stream.id);
  });
}
