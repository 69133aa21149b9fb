/** The application behind every arm: an echo, a sink and a source, each on a port of its own. */
import { createServer, type Server, type Socket } from "node:net";
import { serveParent } from "./child.ts";
import type { Ports } from "./measures.ts";

const block = Buffer.alloc(256 * 1024, 7);

function listen(onConnection: (socket: Socket) => void): Promise<number> {
  const server: Server = createServer({ noDelay: true, allowHalfOpen: false }, (socket) => {
    socket.on("error", () => {});
    onConnection(socket);
  });
  return new Promise((resolve) => {
    server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : 0);
    });
  });
}

function pour(socket: Socket): void {
  const write = (): void => {
    while (!socket.destroyed && socket.write(block));
  };
  socket.on("drain", write);
  socket.once("data", write);
}

serveParent(async (): Promise<Ports> => {
  const echo = await listen((socket) => socket.on("data", (chunk) => socket.write(chunk)));
  const sink = await listen((socket) => socket.resume());
  const source = await listen(pour);
  return { echo, sink, source };
});
