/** What the suites of hostile peers have in common: a served raw client, an echo, error codes. */
import { duplexPair } from "node:stream";
import type { ManualClock, MeshError } from "@fairway/runtime";
import type { ExecutionContext } from "ava";
import type { ConnectExchange, PipeOutcome, ServerTunnel } from "../engine.ts";
import { connectHeaders, data, flags, type RawPeer } from "./raw-peer.ts";
import { forever } from "./tunnel-compliance.ts";

export const authority: string = "10.0.0.1:80";
export const errorCodes = { noError: 0, protocolError: 1, internalError: 2, flowControl: 3, streamClosed: 5, refused: 7, cancel: 8, calm: 11 } as const;

export interface Served {
  readonly peer: RawPeer;
  readonly tunnel: ServerTunnel;
  readonly exchanges: ConnectExchange[];
  /** Why requests were answered without asking anybody. */
  readonly refusals: MeshError[];
  readonly clock: ManualClock;
}

export type Behaviour = (title: string, run: (t: ExecutionContext) => Promise<void>) => void;
export type Serve = (onConnect?: (exchange: ConnectExchange) => void) => Promise<Served>;

export function echo(exchange: ConnectExchange): Promise<PipeOutcome> {
  const [app, near] = duplexPair();
  app.pipe(app);
  return exchange.accept({}).pipe(near, { signal: forever });
}

export async function stillServes(t: ExecutionContext, peer: RawPeer, stream: number): Promise<void> {
  peer.send(connectHeaders(stream, authority), data(stream, "alive", flags.endStream));
  t.is(await peer.receiveAll(stream), "alive");
}
