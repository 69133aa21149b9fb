/** The second hop of our pair: tunnels in, plain TCP to the application out. */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { type ConnectExchange, defaultServerSettings, type EngineName, tunnelEngine } from "@fairway/hbone";
import { type AuthorityPem, createMeshTls } from "@fairway/pki";
import { releaseMemoryAtRest, systemClock } from "@fairway/runtime";
import { serveParent } from "./child.ts";
import { certificateOf, serverIdentity } from "./identities.ts";

export interface InboundSetup {
  readonly authority: AuthorityPem;
  readonly engine: EngineName;
  /** Where it listens, and where the application is. */
  readonly far: string;
}

releaseMemoryAtRest({ clock: systemClock });

serveParent(async ({ authority, engine, far }: InboundSetup): Promise<{ port: number }> => {
  const { signal } = new AbortController();
  const certificate = await certificateOf(authority, serverIdentity);
  const tls = createMeshTls({ clock: systemClock });

  const onConnect = (exchange: ConnectExchange): void => {
    const port = Number(exchange.request.authority.split(":")[1]);
    const app = connect({ port, host: far, allowHalfOpen: true, noDelay: true });
    app.once("error", () => {
      if (app.connecting) exchange.reject(503);
    });
    // The outcome of a copy is of no interest here, and `pipe` never rejects.
    app.once("connect", () => void exchange.accept({}).pipe(app, { signal }));
  };

  const serve = async (raw: Socket): Promise<void> => {
    try {
      const { socket } = await tls.accept(raw, certificate, { signal });
      tunnelEngine(engine).serve(socket, defaultServerSettings, onConnect);
    } catch (thrown) {
      raw.destroy();
      console.error(String(thrown));
    }
  };

  const server = createServer({ noDelay: true }, (socket) => void serve(socket));
  server.listen({ port: 0, host: far, backlog: 4096 });
  await once(server, "listening");
  const address = server.address();
  return { port: typeof address === "object" && address !== null ? address.port : 0 };
});
