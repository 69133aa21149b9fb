/** The application behind every proxy: HTTP/1.1 and gRPC, behind mutual TLS for nginx and haproxy, and in tunnels for the waypoint. */
import { once } from "node:events";
import { createServer as createHttp, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createHttp2, type Http2Server, type ServerHttp2Stream } from "node:http2";
import { createServer, type Server, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { createServer as createTls } from "node:tls";
import { type ConnectExchange, defaultEngineName, defaultServerSettings, tunnelEngine } from "@fairway/hbone";
import { type AuthorityPem, createMeshTls } from "@fairway/pki";
import { systemClock } from "@fairway/runtime";
import { serveParent } from "../child.ts";
import { certificateOf, serverIdentity } from "../identities.ts";
import { smallBody } from "./http-connection.ts";
import { pemOf } from "./pem.ts";

export interface BackendPorts {
  /** Mutual TLS, HTTP/1.1 and HTTP/2 by ALPN. */
  readonly tls: number;
  readonly tunnel: number;
}

const block = Buffer.alloc(256 * 1024, 7);
const grpcAnswer = Buffer.from([0, 0, 0, 0, 5, 5, 4, 3, 2, 1]);

function answer(request: IncomingMessage, response: ServerResponse): void {
  const bytes = Number(/^\/bytes\/(\d+)$/.exec(request.url ?? "")?.[1] ?? 0);
  if (bytes > 0) {
    response.writeHead(200, { "content-length": bytes });
    let left = bytes;
    const write = (): void => {
      while (left > 0) {
        const part = left >= block.length ? block : block.subarray(0, left);
        left -= part.length;
        if (!response.write(part)) return void response.once("drain", write);
      }
      response.end();
    };
    write();
    return;
  }
  request.resume();
  request.on("end", () => {
    response.writeHead(200, { "content-type": "text/plain", "content-length": smallBody.length });
    response.end(smallBody);
  });
}

function answerGrpc(stream: ServerHttp2Stream): void {
  stream.on("error", () => undefined);
  stream.resume();
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.end(grpcAnswer);
}

const http = createHttp({ keepAliveTimeout: 120_000 }, answer);
const http2: Http2Server = createHttp2();
http2.on("stream", answerGrpc);
http2.on("sessionError", () => undefined);

/** By the port that the tunnel asks for: even ones speak HTTP/1.1, the others gRPC. */
function serveStream(exchange: ConnectExchange, grpcPort: number): void {
  const stream: Duplex = exchange.accept({}).duplex();
  stream.on("error", () => undefined);
  const isGrpc = exchange.request.authority.endsWith(`:${grpcPort}`);
  (isGrpc ? http2 : http).emit("connection", stream);
}

async function portOf(server: Server): Promise<number> {
  server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 });
  await once(server, "listening");
  const address = server.address();
  return typeof address === "object" && address !== null ? address.port : 0;
}

serveParent(async ({ authority, grpcPort }: { authority: AuthorityPem; grpcPort: number }): Promise<BackendPorts> => {
  const { signal } = new AbortController();
  const { key, cert, ca } = pemOf(authority, serverIdentity);
  const tls = createTls({ key, cert, ca, requestCert: true, rejectUnauthorized: true, ALPNProtocols: ["h2", "http/1.1"] }, (socket) => {
    socket.setNoDelay(true);
    socket.on("error", () => undefined);
    (socket.alpnProtocol === "h2" ? http2 : http).emit("connection", socket);
  });
  const certificate = await certificateOf(authority, serverIdentity);
  const mesh = createMeshTls({ clock: systemClock });
  const serveTunnel = async (raw: Socket): Promise<void> => {
    try {
      const { socket } = await mesh.accept(raw, certificate, { signal });
      tunnelEngine(defaultEngineName).serve(socket, defaultServerSettings, (exchange) => serveStream(exchange, grpcPort));
    } catch (thrown) {
      raw.destroy();
      console.error(String(thrown));
    }
  };
  const tunnel = createServer({ noDelay: true }, (socket) => void serveTunnel(socket));
  return { tls: await portOf(tls), tunnel: await portOf(tunnel) };
});
