/**
 * The echo application: what it received, so that a test sees what a proxy made of a request. A request may ask for an answer:
 *   /status/<code>      that status
 *   /flaky/<n>/<key>    503 for the first n requests of that key, then 200
 *   /slow/<ms>          an answer after so long
 *   /half/<bytes>       announces twice as many bytes and breaks off
 *   /break              breaks off without an answer
 *   /digest             "<bytes> <sha256>" of what was sent
 *   /source/<bytes>     that many bytes of the test stream
 */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
} from "@grpc/grpc-js";
import { WebSocketServer } from "ws";
import { echoMethods } from "./echo-grpc.ts";
import { testStream } from "./test-stream.ts";

const pod = process.env["HOSTNAME"] ?? "";
const failures = new Map<string, number>();
const mostMessages = 100_000;
let received = 0;

function answer(request: IncomingMessage, response: ServerResponse, body: string): void {
  const { method, url = "/", headers } = request;
  const [, action = "", first = "", second = ""] = (url.split("?")[0] ?? "").split("/");
  const send = (status: number): void => {
    response.writeHead(status, { "content-type": "application/json", "x-pod": pod });
    response.end(JSON.stringify({ pod, method, path: url, host: headers.host, headers, body: body.length > 1024 ? `${body.length} bytes` : body, received }));
  };
  switch (action) {
    case "status":
      send(Number(first));
      return;
    case "flaky": {
      const failed = failures.get(second) ?? 0;
      failures.set(second, failed + 1);
      send(failed < Number(first) ? 503 : 200);
      return;
    }
    case "slow":
      setTimeout(() => send(200), Number(first));
      return;
    case "half":
      response.writeHead(200, { "content-length": String(2 * Number(first)) });
      response.write("x".repeat(Number(first)));
      setTimeout(() => response.destroy(), 50);
      return;
    case "break":
      request.socket.destroy();
      return;
    case "digest":
      response.end(`${body.length} ${createHash("sha256").update(body, "latin1").digest("hex")}`);
      return;
    case "source":
      testStream(Number(first)).pipe(response);
      return;
    default:
      send(200);
  }
}

/** Serves until the process ends; resolves when both ports listen. */
export async function serveEcho(ports: { http: number; grpc: number }): Promise<void> {
  const http = createServer((request, response) => {
    received++;
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("error", () => response.destroy());
    request.on("end", () => answer(request, response, Buffer.concat(chunks).toString("latin1")));
  });
  const sockets = new WebSocketServer({ server: http, path: "/ws" });
  sockets.on("connection", (socket) => {
    socket.on("message", (message, binary) => socket.send(message, { binary }));
    socket.on("error", () => socket.terminate());
  });
  const listening = once(http.listen(ports.http, "::"), "listening");
  const grpc = new Server();
  const { Unary, Down, Up, Both } = echoMethods;
  grpc.addService({ Unary, Down, Up, Both } as never, grpcHandlers());
  await new Promise<void>((resolve, reject) => {
    grpc.bindAsync(`[::]:${ports.grpc}`, ServerCredentials.createInsecure(), (error) => (error === null ? resolve() : reject(error)));
  });
  await listening;
}

function grpcHandlers() {
  return {
    Unary: (call: ServerUnaryCall<object, object>, reply: sendUnaryData<object>) =>
      reply(null, { pod, said: call.request, metadata: call.metadata.getMap() }, trailers()),
    Down: (call: ServerWritableStream<{ count?: number }, object>) => {
      const count = Math.min(mostMessages, call.request.count ?? 1);
      for (let index = 0; index < count; index++) call.write({ pod, index });
      call.end(trailers());
    },
    Up: (call: ServerReadableStream<object, object>, reply: sendUnaryData<object>) => {
      let count = 0;
      call.on("data", () => count++);
      call.on("end", () => reply(null, { pod, count }, trailers()));
    },
    Both: (call: ServerDuplexStream<object, object>) => {
      call.on("data", (message: object) => call.write({ pod, said: message }));
      call.on("error", () => call.destroy());
      call.on("end", () => call.end(trailers()));
    },
  };
}

function trailers(): Metadata {
  const metadata = new Metadata();
  metadata.set("x-pod", pod);
  return metadata;
}
