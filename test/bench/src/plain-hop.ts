/** One hop of plain TCP, with the copy that ztunnel uses for traffic outside the mesh. */
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { pipe } from "@fairway/hbone";
import { releaseMemoryAtRest, systemClock } from "@fairway/runtime";
import { serveParent } from "./child.ts";
import type { Ports } from "./measures.ts";

releaseMemoryAtRest({ clock: systemClock });

serveParent(async ({ backends, far }: { backends: Ports; far: string }): Promise<Ports> => {
  const { signal } = new AbortController();
  const listen = async (backendPort: number): Promise<number> => {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      const app = connect({ port: backendPort, host: far, allowHalfOpen: true, noDelay: true });
      // The outcome of a copy is of no interest here, and `pipe` never rejects.
      app.once("connect", () => void pipe(socket, app, { signal }));
      app.once("error", () => socket.destroy());
      socket.on("error", () => {});
    });
    server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 });
    await once(server, "listening");
    const address = server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  };
  return { echo: await listen(backends.echo), sink: await listen(backends.sink), source: await listen(backends.source) };
});
