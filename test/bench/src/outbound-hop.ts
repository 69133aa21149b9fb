/** The first hop of our pair: plain TCP in, a stream of a pooled tunnel out. */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { type ClientTunnel, type EngineName, type TunnelKey, TunnelPool, tunnelEngine } from "@fairway/hbone";
import { type AuthorityPem, createMeshTls } from "@fairway/pki";
import { releaseMemoryAtRest, systemClock } from "@fairway/runtime";
import { serveParent } from "./child.ts";
import { certificateOf, clientIdentity, serverIdentity } from "./identities.ts";
import type { Ports } from "./measures.ts";

export interface OutboundSetup {
  readonly authority: AuthorityPem;
  readonly engine: EngineName;
  /** Where the second hop listens, and the application behind it. */
  readonly far: string;
  readonly tunnelPort: number;
  readonly backends: Ports;
}

releaseMemoryAtRest({ clock: systemClock });

/** Tunnels that ended with an error since the last question. */
export type TunnelsLost = { readonly lost: number };

const seen = new WeakSet<ClientTunnel>();
let lost = 0;

function watch(tunnel: ClientTunnel): void {
  if (seen.has(tunnel)) return;
  seen.add(tunnel);
  void tunnel.closed.then((error) => {
    if (error !== undefined) lost += 1;
  });
}

async function start({ authority, engine, far, tunnelPort, backends }: OutboundSetup): Promise<Ports> {
  const { signal } = new AbortController();
  const certificate = await certificateOf(authority, clientIdentity);
  const tls = createMeshTls({ clock: systemClock });
  const pool = new TunnelPool({ engine: tunnelEngine(engine) });
  const key: TunnelKey = { owner: "bench", source: clientIdentity, expected: [serverIdentity], workload: "bench", address: `${far}:${tunnelPort}` };

  const dial = async (dialing: AbortSignal) => {
    const socket = connect({ port: tunnelPort, host: far, noDelay: true });
    await once(socket, "connect", { signal: dialing });
    return (await tls.connect(socket, certificate, [serverIdentity], { signal: dialing })).socket;
  };

  const forward = async (socket: Socket, target: string, to: TunnelKey): Promise<void> => {
    try {
      const { stream, tunnel } = await pool.open(to, { authority: target }, dial, { signal });
      watch(tunnel);
      await stream.pipe(socket, { signal });
    } catch (thrown) {
      socket.destroy();
      console.error(String(thrown));
    }
  };

  const listen = async (onConnection: (socket: Socket) => void): Promise<number> => {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, onConnection);
    server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 });
    await once(server, "listening");
    const address = server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  };
  const pooled = (backendPort: number): Promise<number> => listen((socket) => void forward(socket, `${far}:${backendPort}`, key));

  let tunnels = 0;
  const alone = async (socket: Socket): Promise<void> => {
    const workload = `fresh-${tunnels++}`;
    await forward(socket, `${far}:${backends.echo}`, { ...key, workload });
    pool.evictWorkload(workload);
  };
  return {
    echo: await pooled(backends.echo),
    sink: await pooled(backends.sink),
    source: await pooled(backends.source),
    fresh: await listen((socket) => void alone(socket)),
  };
}

serveParent(async (message: OutboundSetup | "tunnels lost"): Promise<Ports | TunnelsLost> => {
  if (message !== "tunnels lost") return start(message);
  const answer = { lost };
  lost = 0;
  return answer;
});
