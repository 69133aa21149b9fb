/** The first hop of our pair: plain TCP in, a stream of a pooled tunnel out. */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { collectYoungObjectsEarly, type EngineName, type TunnelKey, TunnelPool, tunnelEngine } from "@fairway/hbone";
import { type AuthorityPem, createMeshTls } from "@fairway/pki";
import { systemClock } from "@fairway/runtime";
import { serveParent } from "./child.ts";
import { certificateOf, clientIdentity, serverIdentity } from "./identities.ts";
import type { Ports } from "./measures.ts";

export interface OutboundSetup {
  readonly authority: AuthorityPem;
  readonly engine: EngineName;
  readonly tunnelPort: number;
  readonly backends: Ports;
}

collectYoungObjectsEarly();

serveParent(async ({ authority, engine, tunnelPort, backends }: OutboundSetup): Promise<Ports> => {
  const { signal } = new AbortController();
  const certificate = await certificateOf(authority, clientIdentity);
  const tls = createMeshTls({ clock: systemClock });
  const pool = new TunnelPool({ engine: tunnelEngine(engine) });
  const key: TunnelKey = { owner: "bench", source: clientIdentity, expected: [serverIdentity], workload: "bench", address: `127.0.0.1:${tunnelPort}` };

  const dial = async (dialing: AbortSignal) => {
    const socket = connect({ port: tunnelPort, host: "127.0.0.1", noDelay: true });
    await once(socket, "connect", { signal: dialing });
    return (await tls.connect(socket, certificate, [serverIdentity], { signal: dialing })).socket;
  };

  const forward = async (socket: Socket, target: string): Promise<void> => {
    try {
      const { stream } = await pool.open(key, { authority: target }, dial, { signal });
      await stream.pipe(socket, { signal });
    } catch (thrown) {
      socket.destroy();
      console.error(String(thrown));
    }
  };

  const listen = async (backendPort: number): Promise<number> => {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => void forward(socket, `127.0.0.1:${backendPort}`));
    server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 });
    await once(server, "listening");
    const address = server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  };
  return { echo: await listen(backends.echo), sink: await listen(backends.sink), source: await listen(backends.source) };
});
