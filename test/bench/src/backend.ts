/** The application behind every arm: an echo, a sink and a source, each on a port of its own. */
import { createServer, type Server, type Socket } from "node:net";
import { serveParent } from "./child.ts";
import type { Ports } from "./measures.ts";

const block = Buffer.alloc(256 * 1024, 7);

function listen(host: string, onConnection: (socket: Socket) => void): Promise<number> {
  const server: Server = createServer({ noDelay: true, allowHalfOpen: false }, (socket) => {
    socket.on("error", ignore);
    onConnection(socket);
  });
  return new Promise((resolve) => {
    server.listen({ port: 0, host, backlog: 4096 }, () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : 0);
    });
  });
}

function ignore(): void {}

/** No closure for a connection: what the application costs is taken from what is measured. */
function echo(this: Socket, chunk: Buffer): void {
  this.write(chunk);
}

function pour(socket: Socket): void {
  const write = (): void => {
    while (!socket.destroyed && socket.write(block));
  };
  socket.on("drain", write);
  socket.once("data", write);
}

serveParent(async ({ far }: { far: string }): Promise<Ports> => {
  const echoing = await listen(far, (socket) => socket.on("data", echo));
  const sink = await listen(far, (socket) => socket.resume());
  const source = await listen(far, pour);
  return { echo: echoing, sink, source };
});
