/** The client of the echo application, as it runs inside a pod. */
import { Agent, request } from "node:http";
import { connect } from "node:net";
import { Client, type ClientReadableStream, type ClientWritableStream, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import { WebSocket } from "ws";
import { echoMethods } from "./echo-grpc.ts";

export interface FetchOptions {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  readonly body?: string;
}

export interface Fetched {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly body: string;
  readonly error?: string;
}

const requestTimeoutMs = 20_000;
const connectionsAtOnce = 8;

/** Status 0 when no answer arrived. Without an agent the connection is new. */
export function fetchOne(url: string, { method = "GET", headers = {}, body }: FetchOptions, agent: Agent | false = false): Promise<Fetched> {
  return new Promise((resolve) => {
    const failed = (error: Error): void => resolve({ status: 0, headers: {}, body: "", error: error.message });
    const outgoing = request(url, { agent, method, headers: headers as Record<string, string>, timeout: requestTimeoutMs }, (response) => {
      let text = "";
      response.on("data", (chunk: Buffer) => {
        text += chunk.toString("latin1");
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
      response.on("error", failed);
    });
    outgoing.on("timeout", () => outgoing.destroy(new Error("no answer in time")));
    outgoing.on("error", failed);
    outgoing.end(body);
  });
}

/** Counts by status, and by the app that answered (its pod's name without the two generated parts). */
export async function fetchMany(
  url: string,
  count: number,
  options: FetchOptions,
): Promise<{ statuses: Record<string, number>; apps: Record<string, number> }> {
  const agent = new Agent({ keepAlive: true, maxSockets: connectionsAtOnce });
  const statuses: Record<string, number> = {};
  const apps: Record<string, number> = {};
  let left = count;
  const loop = async (): Promise<void> => {
    while (left-- > 0) {
      const { status, headers } = await fetchOne(url, options, agent);
      statuses[status] = (statuses[status] ?? 0) + 1;
      const app = String(headers["x-pod"] ?? "").replace(/-[^-]+-[^-]+$/, "");
      if (app !== "") apps[app] = (apps[app] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: connectionsAtOnce }, loop));
  agent.destroy();
  return { statuses, apps };
}

/** Sends bytes as they are (`\r`, `\n`, `\0` and `\xHH` escaped) and returns everything until the end, or what arrived in 15 s. */
export function rawHttp(host: string, port: number, escaped: string): Promise<{ answer: string; closed: boolean }> {
  const bytes = escaped.replace(/\\(r|n|0|x[0-9a-f]{2})/g, (_, code: string) =>
    code === "r" ? "\r" : code === "n" ? "\n" : String.fromCharCode(code === "0" ? 0 : Number.parseInt(code.slice(1), 16)),
  );
  return new Promise((resolve) => {
    let answer = "";
    const socket = connect({ host, port, allowHalfOpen: true });
    const finish = (closed: boolean): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ answer, closed });
    };
    const timer = setTimeout(() => finish(false), 15_000);
    socket.on("connect", () => socket.write(Buffer.from(bytes, "latin1")));
    socket.on("data", (chunk: Buffer) => {
      answer += chunk.toString("latin1");
    });
    socket.on("end", () => finish(true));
    socket.on("error", () => finish(true));
  });
}

export function chat(url: string, count: number): Promise<{ returned: number; error?: string }> {
  return new Promise((resolve) => {
    const socket = new WebSocket(url, { handshakeTimeout: requestTimeoutMs });
    let returned = 0;
    let error: string | undefined;
    const send = (): void => socket.send(`message ${returned} ${"x".repeat(returned % 1_000)}`);
    socket.on("open", send);
    socket.on("message", (message) => {
      if (!String(message).startsWith(`message ${returned} `)) error = "another message came back";
      returned++;
      if (returned >= count || error !== undefined) socket.close();
      else send();
    });
    socket.on("error", (thrown) => {
      error = thrown.message;
    });
    socket.on("close", () => resolve({ returned, ...(error === undefined ? {} : { error }) }));
  });
}

export interface GrpcResult {
  /** Messages that came. */
  readonly messages: number;
  /** By app, as the messages say. */
  readonly apps: Record<string, number>;
  readonly trailer: string;
  readonly code: number;
  readonly details: string;
  /** Of the last unary answer: what the server received as metadata. */
  readonly metadata?: unknown;
  readonly peers: readonly string[];
}

/** `kind`: unary (`count` calls), down, up or both (one call of `count` messages). */
export async function callGrpc(target: string, kind: string, count: number, { headers = {} }: { headers?: Record<string, string> }): Promise<GrpcResult> {
  if (target.startsWith("xds:")) (await import("@grpc/grpc-js-xds")).register();
  const client = new Client(target, credentials.createInsecure());
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  const result = {
    messages: 0,
    apps: {} as Record<string, number>,
    trailer: "",
    code: 0,
    details: "",
    peers: new Set<string>(),
    metadata: undefined as unknown,
  };
  const take = (message: { pod?: string; metadata?: unknown }): void => {
    result.messages++;
    result.metadata = message.metadata;
    const app = String(message.pod ?? "").replace(/-[^-]+-[^-]+$/, "");
    result.apps[app] = (result.apps[app] ?? 0) + 1;
  };
  const calls = kind === "unary" ? count : 1;
  for (let index = 0; index < calls && result.code === 0; index++) {
    await new Promise<void>((resolve) => {
      const method = echoMethods[kind === "down" ? "Down" : kind === "up" ? "Up" : kind === "both" ? "Both" : "Unary"];
      const options = { deadline: Date.now() + requestTimeoutMs };
      const { path, requestSerialize: write, responseDeserialize: read } = method;
      const onAnswer = (error: ServiceError | null, message?: object): void => {
        if (error === null && message !== undefined) take(message);
      };
      const call =
        kind === "down"
          ? client.makeServerStreamRequest<object, object>(path, write, read, { count }, metadata, options)
          : kind === "up"
            ? client.makeClientStreamRequest<object, object>(path, write, read, metadata, options, onAnswer)
            : kind === "both"
              ? client.makeBidiStreamRequest<object, object>(path, write, read, metadata, options)
              : client.makeUnaryRequest<object, object>(path, write, read, { index }, metadata, options, onAnswer);
      if (kind === "down" || kind === "both") (call as ClientReadableStream<object>).on("data", take).on("error", () => undefined);
      if (kind === "up" || kind === "both") {
        const stream = call as ClientWritableStream<object>;
        for (let sent = 0; sent < count; sent++) stream.write({ sent });
        stream.end();
      }
      call.on("status", ({ code, details, metadata: last }) => {
        result.code = code;
        result.details = details;
        result.trailer = String(last.get("x-pod")[0] ?? "");
        result.peers.add(call.getPeer());
        setImmediate(resolve);
      });
    });
  }
  client.close();
  return { ...result, peers: [...result.peers] };
}
