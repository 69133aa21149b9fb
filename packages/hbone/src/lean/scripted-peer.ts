/** One end of a lean tunnel and, at the other, a peer that says frame by frame what a test wants; for tests of the session's rules. */
import { type Duplex, duplexPair } from "node:stream";
import { ManualClock } from "@fairway/runtime";
import { memoryLink } from "../compliance/link.ts";
import { frameTypes, RawPeer, status200 } from "../compliance/raw-peer.ts";
import { forever } from "../compliance/tunnel-compliance.ts";
import type { ClientTunnel, ConnectExchange, PipeOutcome, ServerTunnel, TunnelSettings, TunnelStream } from "../engine.ts";
import { defaultClientSettings, defaultServerSettings } from "../settings.ts";
import { createLeanEngine } from "./index.ts";

export const authority: string = "10.0.0.1:80";

export interface Served {
  readonly peer: RawPeer;
  readonly tunnel: ServerTunnel;
  readonly exchanges: ConnectExchange[];
  readonly clock: ManualClock;
}

export async function serve(
  options: { settings?: Partial<TunnelSettings>; acknowledge?: boolean; onConnect?: (exchange: ConnectExchange) => void } = {},
): Promise<Served> {
  const clock = new ManualClock();
  const link = await memoryLink();
  const exchanges: ConnectExchange[] = [];
  const tunnel = createLeanEngine(clock).serve(link.server, { ...defaultServerSettings, ...options.settings }, (exchange) => {
    exchanges.push(exchange);
    options.onConnect?.(exchange);
  });
  return { peer: new RawPeer(link.client, "client", { acknowledge: options.acknowledge ?? true }), tunnel, exchanges, clock };
}

export async function connect(): Promise<{ peer: RawPeer; tunnel: ClientTunnel; clock: ManualClock }> {
  const clock = new ManualClock();
  const link = await memoryLink();
  const peer = new RawPeer(link.server, "server");
  return { peer, tunnel: await createLeanEngine(clock).connect(link.client, defaultClientSettings, { signal: forever }), clock };
}

/** A stream of the client, answered. */
export async function opened(peer: RawPeer, tunnel: ClientTunnel): Promise<TunnelStream> {
  const opening = tunnel.open({ authority }, { signal: forever });
  await peer.receive(({ type }) => type === frameTypes.headers);
  peer.send(status200(1));
  return (await opening).stream;
}

/** `near` is the socket that the engine copies to, `app` what is at its other end. */
export function attach(stream: TunnelStream): { app: Duplex; near: Duplex; outcome: Promise<PipeOutcome> } {
  const [app, near] = duplexPair();
  app.on("error", () => {});
  return { app, near, outcome: stream.pipe(near, { signal: forever }) };
}

export async function resetCode(peer: RawPeer, id: number): Promise<number> {
  return (await peer.receive(({ type, stream }) => type === frameTypes.rstStream && stream === id)).payload.readUInt32BE(0);
}

export async function goawayCode(peer: RawPeer): Promise<number> {
  return (await peer.receive(({ type }) => type === frameTypes.goaway)).payload.readUInt32BE(4);
}

export function sentBytes(peer: RawPeer, id: number): number {
  return peer.frames.filter(({ type, stream }) => type === frameTypes.data && stream === id).reduce((sum, { payload }) => sum + payload.length, 0);
}

export async function settled(turns = 20): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
}
