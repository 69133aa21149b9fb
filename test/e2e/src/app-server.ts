/**
 * The application of the end-to-end tests, server side: protocols that break proxies.
 *
 *   7000 echo         sends back what arrives; ends when the client does
 *   7001 greeter      speaks first, then echoes
 *   7002 digest       reads to the client's FIN, then answers "<bytes> <sha256>"
 *   7003 source       reads "<bytes>\n", sends that many bytes of the test stream, ends
 *   7004 farewell     sends "bye" and its FIN at once, goes on reading
 *   7005 ledger       answers "<bytes>" read by the last farewell connection that ended
 *   7006 who          answers the client's address as the application sees it, ends
 *   7053 echo (UDP)
 *   8080 HTTP         GET / answers the client's address; listens once all the others do, so that a probe of it is one of all
 *   8081 HTTP echo    answers what it received, as JSON (`echo-server.ts`); WebSocket echo at /ws
 *   8082 gRPC echo    (`echo-server.ts`)
 *   8083 outside      an issuer of tokens and a collector of spans (`outside-server.ts`)
 */
import { createHash } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { createServer, type Socket } from "node:net";
import { serveEcho } from "./echo-server.ts";
import { serveOutside } from "./outside-server.ts";
import { testStream } from "./test-stream.ts";

let farewellBytes = 0;

function clientAddress(socket: Socket): string {
  return socket.remoteAddress?.replace(/^::ffff:/, "") ?? "";
}

const services: Readonly<Record<number, (socket: Socket) => void>> = {
  7000: (socket) => void socket.pipe(socket),
  7001: (socket) => {
    socket.write("hello from the server\n");
    socket.pipe(socket);
  },
  7002: (socket) => {
    const hash = createHash("sha256");
    let bytes = 0;
    socket.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      hash.update(chunk);
    });
    socket.on("end", () => socket.end(`${bytes} ${hash.digest("hex")}`));
  },
  7003: (socket) => {
    let request = "";
    socket.on("data", (chunk: Buffer) => {
      request += chunk.toString();
      if (request.endsWith("\n")) testStream(Number(request)).pipe(socket);
    });
  },
  7004: (socket) => {
    let bytes = 0;
    socket.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
    });
    socket.on("end", () => {
      farewellBytes = bytes;
    });
    socket.end("bye");
  },
  7005: (socket) => void socket.end(String(farewellBytes)),
  7006: (socket) => void socket.end(clientAddress(socket)),
};

export async function serve(): Promise<void> {
  const listening: Promise<unknown>[] = [];
  for (const [port, service] of Object.entries(services)) {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      socket.on("error", () => socket.destroy());
      service(socket);
    });
    listening.push(once(server.listen({ port: Number(port), host: "::", backlog: 2_048 }), "listening"));
  }
  const udp = createSocket("udp6");
  udp.on("message", (message, { port, address }) => udp.send(message, port, address));
  listening.push(once(udp.bind(7053, "::"), "listening"));
  await Promise.all([...listening, serveEcho({ http: 8081, grpc: 8082 }), serveOutside(8083)]);
  createHttpServer((request, response) => response.end(`${clientAddress(request.socket)}\n`)).listen(8080, "::");
}
