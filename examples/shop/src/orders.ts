/**
 * Takes orders over HTTP, WebSocket and gRPC, and says which version of it did: what a waypoint can govern.
 *
 *   GET /            {version, path, …}
 *   GET /flaky       fails with 503 the first time that it sees a request, by its x-request-id
 *   WS  /live        sends every message back
 *   gRPC shop.Orders Place (unary), Watch (the server streams), Talk (both stream); messages are JSON
 */
import { createServer } from "node:http";
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
} from "@grpc/grpc-js";
import { WebSocketServer } from "ws";
import { ordersService } from "./orders-service.ts";

const version = process.env["VERSION"] ?? "v1";
const mostEvents = 10_000;
const longestMessage = 64 * 1024;
/** Requests that failed once. */
const failedOnce = new Set<string>();
const mostRemembered = 10_000;

const http = createServer((request, response) => {
  const path = request.url ?? "/";
  const { "x-member": member, "x-envoy-attempt-count": attempt, "x-request-id": id } = request.headers;
  const failed = path.startsWith("/flaky") && failsOnce(String(id));
  response.writeHead(failed ? 503 : 200, { "content-type": "application/json", "x-version": version });
  response.end(`${JSON.stringify({ version, path, host: request.headers.host, member, attempt, id, pod: process.env["HOSTNAME"] ?? "" })}\n`);
});

function failsOnce(id: string): boolean {
  if (failedOnce.delete(id)) return false;
  if (failedOnce.size < mostRemembered) failedOnce.add(id);
  return true;
}

const sockets = new WebSocketServer({ server: http, path: "/live", maxPayload: longestMessage });
sockets.on("connection", (socket) => {
  socket.on("message", (message, binary) => socket.send(message, { binary }));
  socket.on("error", () => socket.terminate());
});

const grpc = new Server();
grpc.addService(ordersService, {
  Place: ({ request }: ServerUnaryCall<object, object>, reply: sendUnaryData<object>) => reply(null, { version, order: request }, trailers()),
  Watch: (call: ServerWritableStream<{ events?: number }, object>) => {
    const events = Math.min(mostEvents, Number(call.request.events ?? 1));
    for (let event = 1; event <= events; event++) call.write({ version, event });
    call.end(trailers());
  },
  Talk: (call: ServerDuplexStream<object, object>) => {
    call.on("data", (message: object) => call.write({ version, said: message }));
    call.on("error", () => call.destroy());
    call.on("end", () => call.end(trailers()));
  },
});

function trailers(): Metadata {
  const metadata = new Metadata();
  metadata.set("x-version", version);
  return metadata;
}

http.listen(8080, "::");
grpc.bindAsync("[::]:9090", ServerCredentials.createInsecure(), (error) => {
  if (error !== null) throw error;
});
process.on("SIGTERM", () => {
  grpc.tryShutdown(() => undefined);
  http.close(() => process.exit(0));
  http.closeIdleConnections();
});
