/** Exchanges for tests of single stages: a request that came from nowhere, and whoever answers it. */
import { HeaderFields, parseIp, parseSpiffeId, type RequestHead, type ServedPort, type WaypointConfig } from "@fairway/model";
import { type Body, type BodySink, emptyBody, textBody } from "./body.ts";
import type { Downstream, Stage } from "./exchange.ts";
import type { Answer, Delivery, IncomingRequest } from "./http-connection.ts";
import { RequestExchange } from "./request-exchange.ts";
import { runStages } from "./stages.ts";
import { apiConfig } from "./test-waypoint.ts";

export interface TestRequestOptions {
  readonly head?: Partial<Omit<RequestHead, "headers">>;
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  readonly body?: Body;
  readonly port?: Partial<ServedPort>;
  readonly downstream?: Partial<Downstream>;
  readonly config?: WaypointConfig;
  readonly upgrade?: string;
}

export interface TestExchange {
  readonly exchange: RequestExchange;
  /** The client's side is over. */
  done(delivery?: Partial<Delivery>): void;
}

export function testExchange(options: TestRequestOptions = {}): TestExchange {
  const { head = {}, headers = {}, body = emptyBody, port = {}, downstream = {}, upgrade } = options;
  const config = options.config ?? apiConfig({ vip: "10.0.0.1", endpoints: [], port });
  const [target] = [...config.targets.values()];
  const [served] = target?.ports ?? [];
  if (target === undefined || served === undefined) throw new Error("the configuration has no target");
  const request: IncomingRequest = {
    version: "http1",
    head: { method: "GET", scheme: "http", authority: "api", path: "/", ...head, headers: HeaderFields.of(headers) },
    body,
    upgrade,
    inform: () => undefined,
    respond: () => undefined,
    onDone: undefined,
  };
  const exchange = new RequestExchange(
    request,
    {
      identity: parseSpiffeId("spiffe://cluster.local/ns/default/sa/a"),
      source: { ip: parseIp("10.1.0.1"), port: 40_000 },
      destination: { ip: parseIp("10.0.0.1"), port: 80 },
      target,
      port: served,
      baggage: undefined,
      ...downstream,
    },
    0,
  );
  return { exchange, done: (delivery = {}) => request.onDone?.({ bytesReceived: 0, bytesSent: 0, error: undefined, ...delivery }) };
}

export function answer(status: number, headers: Readonly<Record<string, string>> = {}, body = ""): Answer {
  return { status, headers: HeaderFields.of(headers), body: textBody(body) };
}

/** The stages, and after them whoever answers. */
export function through(stages: readonly Stage[], exchange: RequestExchange, last: Stage): Promise<Answer> {
  return runStages([...stages, last], exchange);
}

/** Everything of a body, as text; rejects when it breaks off. */
export function read(body: Body): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Uint8Array[] = [];
    body.flowInto({
      write: (bytes) => {
        chunks.push(bytes);
        return true;
      },
      end: () => resolve(Buffer.concat(chunks).toString()),
      fail: reject,
      onReady: undefined,
    });
  });
}

/** A body that a test writes. */
export class WrittenBody implements Body {
  readonly length: number | undefined;
  sink: BodySink | undefined;
  cancelled: Error | undefined;
  ready = 0;

  constructor(length?: number) {
    this.length = length;
  }

  flowInto(sink: BodySink): void {
    this.sink = sink;
    sink.onReady = () => void this.ready++;
  }

  cancel(reason: Error): void {
    this.cancelled ??= reason;
  }
}

/** A sink that a test reads. */
export class ReadSink implements BodySink {
  text = "";
  ended = false;
  failed: Error | undefined;
  takes = true;
  onReady: (() => void) | undefined = undefined;

  write(bytes: Uint8Array): boolean {
    this.text += Buffer.from(bytes).toString();
    return this.takes;
  }

  end(): void {
    this.ended = true;
  }

  fail(error: Error): void {
    this.failed = error;
  }
}
