/** The application behind every arm: an echo, a sink and a source, each on a port of its own. */
import { createServer, type Server, type Socket } from "node:net";
import { serveParent } from "./child.ts";
import type { Ports } from "./measures.ts";

const block = Buffer.alloc(256 * 1024, 7);

function listen(host: string, onConnection: (socket: Socket) => void): Promise<number> {
  const server: Server = createServer({ noDelay: true, allowHalfOpen: false }, (socket) => {
    socket.on("error", () => {});
    onConnection(socket);
  });
  return new Promise((resolve) => {
    server.listen({ port: 0, host, backlog: 4096 }, () => {
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

serveParent(async ({ far }: { far: string }): Promise<Ports> => {
  const echo = await listen(far, (socket) => socket.on("data", (chunk) => socket.write(chunk)));
  const sink = await listen(far, (socket) => socket.resume());
  const source = await listen(far, pour);
  return { echo, sink, source };
});
