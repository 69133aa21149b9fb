/** HTTP/1.1 on both sides as node:http has it: enough to drive the stages in tests, whatever the real codecs do. */
import { createServer, request as httpRequest, type IncomingMessage } from "node:http";
import { HeaderFields } from "@fairway/model";
import { MeshError } from "@fairway/runtime";
import type { Body, BodySink } from "./body.ts";
import type { ClientConnection, IncomingRequest, ServeHttp } from "./http-connection.ts";
import type { Codecs } from "./waypoint-proxy.ts";

const hopByHop = new Set(["connection", "keep-alive", "transfer-encoding", "content-length", "host"]);

function fieldsOf(message: IncomingMessage): HeaderFields {
  const flat: string[] = [];
  for (let index = 0; index < message.rawHeaders.length; index += 2) {
    const name = (message.rawHeaders[index] ?? "").toLowerCase();
    if (!hopByHop.has(name)) flat.push(name, message.rawHeaders[index + 1] ?? "");
  }
  return new HeaderFields(flat);
}

function bodyOf(message: IncomingMessage, empty: boolean): Body {
  let gone = false;
  return {
    length: empty ? 0 : undefined,
    flowInto(sink) {
      sink.onReady = () => void message.resume();
      message.on("data", (chunk: Buffer) => {
        if (!gone && !sink.write(chunk)) message.pause();
      });
      message.on("end", () => {
        if (!gone) sink.end(undefined);
      });
      message.on("close", () => {
        if (!gone && !message.complete) sink.fail(new MeshError("WAYPOINT_UPSTREAM_RESET", "the message broke off"));
      });
    },
    cancel() {
      gone = true;
      message.destroy();
    },
  };
}

function sinkFor(stream: {
  write(bytes: Uint8Array): boolean;
  end(): void;
  destroy(error?: Error): unknown;
  on(event: "drain", run: () => void): unknown;
}): BodySink {
  const sink: BodySink = {
    write: (bytes) => stream.write(bytes),
    end: () => stream.end(),
    fail: () => stream.destroy(),
    onReady: undefined,
  };
  stream.on("drain", () => sink.onReady?.());
  return sink;
}

const serveHttp1: ServeHttp = (transport, options) => {
  let active = 0;
  const server = createServer((message, response) => {
    active++;
    const path = message.url ?? "/";
    const empty = message.headers["content-length"] === undefined && message.headers["transfer-encoding"] === undefined;
    let sent = 0;
    let over = false;
    const request: IncomingRequest = {
      version: "http1",
      head: { method: message.method ?? "GET", scheme: "http", authority: message.headers.host ?? "", path, headers: fieldsOf(message) },
      body: bodyOf(message, empty),
      upgrade: undefined,
      inform: () => undefined,
      respond: ({ status, headers, body }) => {
        if (response.destroyed) return body.cancel(new Error("gone"));
        response.writeHead(status === 0 ? 499 : status, [...headers.flat]);
        const sink = sinkFor(response);
        const write = sink.write;
        body.flowInto(
          Object.assign(sink, {
            write: (bytes: Uint8Array) => {
              sent += bytes.length;
              return write(bytes);
            },
          }),
        );
      },
      onDone: undefined,
    };
    response.once("close", () => {
      if (over) return;
      over = true;
      active--;
      const error = response.writableFinished ? undefined : new MeshError("WAYPOINT_CLIENT_GONE", "the client is gone");
      request.onDone?.({ bytesReceived: 0, bytesSent: sent, error });
    });
    options.onRequest(request);
  });
  server.emit("connection", transport);
  const closed = new Promise<void>((resolve) => transport.once("close", () => resolve()));
  return {
    get active() {
      return active;
    },
    closed,
    drain: () => server.closeIdleConnections(),
    destroy: () => transport.destroy(),
  };
};

/** A connection per request. */
export const testCodecs: Codecs = {
  serve: { http1: serveHttp1, http2: serveHttp1 },
  detect: async (transport, expectHttp) => ({ protocol: expectHttp ? "http1" : "tcp", transport }),
  openConnections: ({ dial }) => ({
    async acquire({ signal }) {
      const transport = await dial(signal);
      const connection: ClientConnection = {
        version: "http1",
        usable: true,
        active: 0,
        closed: Promise.resolve(),
        drain: () => undefined,
        destroy: () => transport.destroy(),
        send: ({ head, body }, options) =>
          new Promise((resolve, reject) => {
            const request = httpRequest({
              createConnection: () => transport,
              method: head.method,
              path: head.path,
              headers: { host: head.authority, ...Object.fromEntries([...head.headers].map(([name]) => [name, [...head.headers.getAll(name)]])) },
              setHost: false,
            });
            const onAbort = (): void => {
              request.destroy();
              reject(options.signal.reason);
            };
            options.signal.addEventListener("abort", onAbort, { once: true });
            request.once("response", (message) => {
              options.signal.removeEventListener("abort", onAbort);
              resolve({ status: message.statusCode ?? 0, headers: fieldsOf(message), body: bodyOf(message, false) });
            });
            request.on("error", () => reject(new MeshError("WAYPOINT_UPSTREAM_RESET", "the upstream broke off", { details: { sent: true } })));
            if (body.length === 0) request.end();
            else body.flowInto(sinkFor(request));
          }),
      };
      return connection;
    },
    drain: () => undefined,
    destroy: () => undefined,
  }),
};
