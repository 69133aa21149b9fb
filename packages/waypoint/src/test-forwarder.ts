/** A proxy that does nothing but pass on, between a client and an application of either version of HTTP, for tests of the codecs. */
import { type Duplex, duplexPair } from "node:stream";
import { HeaderFields, type RequestHead } from "@fairway/model";
import { systemClock } from "@fairway/runtime";
import { type Body, type BodySink, emptyBody, textBody } from "./body.ts";
import { endpointPools } from "./endpoint-pool.ts";
import {
  type ClientConnection,
  type ConnectHttp,
  type Delivery,
  defaultHttpLimits,
  type HttpVersion,
  type IncomingRequest,
  type OutgoingRequest,
  type ServeHttp,
} from "./http-connection.ts";
import { connectHttp1 } from "./http1/client-connection.ts";
import { serveHttp1 } from "./http1/server-connection.ts";
import { connectHttp2 } from "./http2/client.ts";
import { serveHttp2 } from "./http2/server.ts";

const connectors: Readonly<Record<HttpVersion, ConnectHttp>> = { http1: connectHttp1, http2: connectHttp2 };
const servers: Readonly<Record<HttpVersion, ServeHttp>> = { http1: serveHttp1, http2: serveHttp2 };

export interface Forwarder {
  /** The client's connection into it. */
  readonly transport: Duplex;
  /** What the exchanges became, on the client's side. */
  readonly deliveries: Delivery[];
  /** Why requests failed upstream. */
  readonly failures: unknown[];
  readonly refused: { readonly status: number; readonly detail: string }[];
  /** Connections made upstream. */
  dialled: number;
}

export interface ForwarderOptions {
  readonly from: HttpVersion;
  readonly to: HttpVersion;
  /** The client's end, where it is not in memory. */
  readonly transport?: Duplex;
  /** Makes a connection to the application. */
  readonly dial: () => Duplex | Promise<Duplex>;
}

/** Serves one connection of a client. */
export function forward({ from, to, transport, dial }: ForwarderOptions): Forwarder {
  const [near, far] = transport === undefined ? duplexPair() : [transport, transport];
  const forwarder: Forwarder = { transport: near, deliveries: [], failures: [], refused: [], dialled: 0 };
  const pool = endpointPools({ clock: systemClock, connect: connectors })({
    version: to,
    limits: defaultHttpLimits,
    dial: async () => {
      forwarder.dialled += 1;
      return dial();
    },
  });
  const pass = async (request: IncomingRequest): Promise<void> => {
    const gone = new AbortController();
    request.onDone = (delivery) => {
      forwarder.deliveries.push(delivery);
      gone.abort(delivery.error ?? new Error("the exchange is over"));
    };
    const { head, body, upgrade } = request;
    try {
      request.respond(await pool.send({ head, body, upgrade, onInform: (status, headers) => request.inform(status, headers) }, { signal: gone.signal }));
    } catch (thrown) {
      forwarder.failures.push(thrown);
      request.respond({ status: 503, headers: new HeaderFields(), body: textBody("failed") });
    }
  };
  // Never rejects: whatever fails is answered.
  servers[from](far, { limits: defaultHttpLimits, onRequest: (request) => void pass(request), onRefused: (refusal) => forwarder.refused.push(refusal) });
  return forwarder;
}

/** An application of our own codec: the far end of a connection for `dial`. */
export function application(version: HttpVersion, onRequest: (request: IncomingRequest) => void): Duplex {
  const [near, far] = duplexPair();
  servers[version](far, { limits: defaultHttpLimits, onRequest, onRefused: () => undefined });
  return near;
}

/** A client of our own codec. */
export function client(version: HttpVersion, transport: Duplex): ClientConnection {
  return connectors[version](transport, { limits: defaultHttpLimits, onUnusable: () => undefined });
}

export type Asked = Partial<Omit<OutgoingRequest, "head">> & {
  method?: string;
  path?: string;
  headers?: HeaderFields | Record<string, string | readonly string[]>;
};

export function ask({ method = "GET", path = "/", headers = {}, ...rest }: Asked = {}): OutgoingRequest {
  const fields = headers instanceof HeaderFields ? headers : HeaderFields.of(headers);
  const head: RequestHead = { method, scheme: "http", authority: "api.shop", path, headers: fields };
  return { head, body: emptyBody, upgrade: undefined, onInform: () => undefined, ...rest };
}

/** A body that the test writes. */
export class ScriptedBody implements Body {
  readonly length: number | undefined;
  sink: BodySink | undefined;
  cancelled: Error | undefined;
  readonly #queue: ((sink: BodySink) => void)[] = [];

  constructor(length?: number) {
    this.length = length;
  }

  flowInto(sink: BodySink): void {
    this.sink = sink;
    for (const act of this.#queue.splice(0)) act(sink);
  }

  cancel(reason: Error): void {
    this.cancelled = reason;
  }

  write(text: string): void {
    this.#do((sink) => void sink.write(Buffer.from(text)));
  }

  end(trailers?: HeaderFields): void {
    this.#do((sink) => sink.end(trailers));
  }

  fail(error: Error): void {
    this.#do((sink) => sink.fail(error));
  }

  #do(act: (sink: BodySink) => void): void {
    if (this.sink === undefined) this.#queue.push(act);
    else act(this.sink);
  }
}

export interface Collected {
  text: string;
  trailers: readonly string[] | undefined;
  outcome: "whole" | Error | undefined;
  /** Resolves when it is over, either way. */
  readonly over: Promise<void>;
}

/** Reads a body as text. */
export function collect(body: Body): Collected {
  const { promise: over, resolve } = Promise.withResolvers<void>();
  const collected: Collected = { text: "", trailers: undefined, outcome: undefined, over };
  body.flowInto({
    write: (bytes) => {
      collected.text += Buffer.from(bytes).toString("latin1");
      return true;
    },
    end: (trailers) => {
      collected.trailers = trailers?.flat;
      collected.outcome = "whole";
      resolve();
    },
    fail: (error) => {
      collected.outcome = error;
      resolve();
    },
    onReady: undefined,
  });
  return collected;
}

/** Waits until `condition` holds; the test's own timeout is the bound. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}
