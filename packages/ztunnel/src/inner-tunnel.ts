/**
 * The tunnel within the tunnel (ztunnel contract 1.10): across networks a stream of the gateway's tunnel leads to a proxy that we cannot dial,
 * and with which we speak TLS and HTTP/2 of our own, so that the gateway carries bytes that it cannot read. One inner tunnel for each
 * connection: the gateway balances every stream of the outer one to another backend.
 */
import type { Duplex } from "node:stream";
import type { ClientTunnel, ConnectRequest, PipeOutcome, TunnelStream } from "@fairway/hbone";
import type { SpiffeId } from "@fairway/model";
import { ztunnelError } from "./failure.ts";
import type { TunnelScope } from "./pod-scope.ts";
import { clientSettings, namingFailures, ownCertificate } from "./tunnels.ts";

export interface InnerTunnel {
  readonly baggage: string | undefined;
  /** Who the far proxy proved to be. */
  readonly peer: SpiffeId;
  /** Aborts when it is revoked, before the tunnel ends. */
  readonly revoked: AbortSignal | undefined;
  /** As that of a TunnelStream; both tunnels are let go of when it ends. */
  pipe(socket: Duplex, options: { signal: AbortSignal; onBytes: (sent: number, received: number) => void }): Promise<PipeOutcome>;
}

export interface InnerRequest {
  readonly source: SpiffeId;
  /** The far proxy must prove one of these. */
  readonly expected: readonly SpiffeId[];
  readonly connect: ConnectRequest;
}

/** How long the far side has to answer the end of the inner tunnel with its own. */
const closeTimeoutMs = 5_000;

/**
 * Throws what a far service publishes no identities for before anything is dialled: it could be anybody.
 * ZTUNNEL_NO_FAR_IDENTITIES.
 */
export function requireFarIdentities(expected: readonly SpiffeId[], authority: string): void {
  if (expected.length > 0) return;
  throw ztunnelError(
    "ZTUNNEL_NO_FAR_IDENTITIES",
    `nobody can prove to be ${authority} in another network: its service publishes no identities (subjectAltNames); does the control plane know the remote workloads?`,
  );
}

/** Takes over `outer`, a stream of the tunnel to the gateway. Throws ZTUNNEL_IDENTITY, PKI_*, ZTUNNEL_HTTP2_HANDSHAKE, HBONE_*, or the signal's reason. */
export async function openInner(scope: TunnelScope, outer: TunnelStream, request: InnerRequest, { signal }: { signal: AbortSignal }): Promise<InnerTunnel> {
  const { tls, engine, config, revocation } = scope;
  const { source, expected, connect } = request;
  let tunnel: ClientTunnel | undefined;
  try {
    const certificate = await ownCertificate(scope, source, signal);
    const proven = await tls.connect(outer.duplex(), certificate, expected, { signal });
    tunnel = await namingFailures(engine).connect(proven.socket, clientSettings(config), { signal });
    const { stream, baggage } = await tunnel.open(connect, { signal });
    const opened = tunnel;
    const revoked = revocation?.follow(proven, "source", (reason) => opened.destroy(reason));
    return { baggage, peer: proven.peer, revoked, pipe: carry(scope, { outer, tunnel, stream }) };
  } catch (thrown) {
    revocation?.refused("source", thrown);
    tunnel?.destroy();
    outer.reset();
    throw thrown;
  }
}

function carry({ clock }: TunnelScope, ends: { outer: TunnelStream; tunnel: ClientTunnel; stream: TunnelStream }): InnerTunnel["pipe"] {
  const { outer, tunnel, stream } = ends;
  return async (socket, options) => {
    const outcome = await stream.pipe(socket, options);
    if (options.signal.aborted) tunnel.destroy();
    else tunnel.drain();
    const timer = clock.schedule(closeTimeoutMs, () => tunnel.destroy());
    // Never rejects; the bytes are through, and nobody waits for the goodbyes.
    void tunnel.closed.then(() => {
      timer[Symbol.dispose]();
      outer.reset();
    });
    return outcome;
  };
}
