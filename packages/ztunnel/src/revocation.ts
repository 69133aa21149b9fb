/**
 * Revoked peers (ztunnel contract 1.3): asked about at every handshake, and again about every tunnel that lives when the lists change. A tunnel
 * whose peer was revoked meanwhile ends at once, and its connections with it. One for each thread that carries traffic.
 */
import { type PeerChain, type Proven, RevocationCheck, type RevocationList } from "@fairway/pki";
import { errorCode } from "@fairway/runtime";
import { ztunnelError } from "./failure.ts";
import type { ZtunnelMetrics } from "./metrics.ts";

/** Who speaks of a tunnel: its client is the source. */
type Reporter = "source" | "destination";

interface Followed {
  readonly chain: PeerChain;
  readonly end: () => void;
}

export class Revocation {
  readonly #rejections: ZtunnelMetrics["revokedPeers"];
  readonly #followed = new Set<Followed>();
  #check: RevocationCheck;

  constructor({ lists, metrics }: { lists: readonly RevocationList[]; metrics: Pick<ZtunnelMetrics, "revokedPeers"> }) {
    this.#check = new RevocationCheck(lists);
    this.#rejections = metrics.revokedPeers;
  }

  /** For `createMeshTls`. */
  readonly isRevoked = (chain: PeerChain): boolean => this.#check.isRevoked(chain);

  /** Puts `lists` in the place of those before. */
  replace(lists: readonly RevocationList[]): void {
    this.#check = new RevocationCheck(lists);
    // Who is cut off leaves the set.
    for (const { chain, end } of [...this.#followed]) if (this.isRevoked(chain)) end();
  }

  /** Counts a handshake that failed, if it did because the peer is revoked. */
  refused(reporter: Reporter, error: unknown): void {
    if (errorCode(error) === "PKI_PEER_REVOKED") this.#rejections.inc({ reporter });
  }

  /**
   * Follows a tunnel until its socket closes. When its peer is revoked the signal aborts, with the reason for the log of each connection, and
   * then `end` must take the tunnel down.
   */
  follow({ socket, chain }: Proven, reporter: Reporter, end: (reason: Error) => void): AbortSignal {
    const revoked = new AbortController();
    if (chain === undefined || socket.destroyed) return revoked.signal;
    const followed: Followed = {
      chain,
      end: () => {
        this.#followed.delete(followed);
        this.#rejections.inc({ reporter });
        const reason = ztunnelError("ZTUNNEL_PEER_REVOKED", "connection closed: peer certificate revoked by CRL");
        revoked.abort(reason);
        end(reason);
      },
    };
    this.#followed.add(followed);
    socket.once("close", () => this.#followed.delete(followed));
    // The lists may have changed since the handshake.
    if (this.isRevoked(chain)) followed.end();
    return revoked.signal;
  }

  /** Tunnels followed now. */
  get size(): number {
    return this.#followed.size;
  }
}

/** Closes `connection` when a tunnel that carries it loses its peer. Dispose when the connection ended. */
export function closedWith(connection: { close(reason: Error): void }, ...tunnels: readonly (AbortSignal | undefined)[]): Disposable {
  const undo: (() => void)[] = [];
  for (const revoked of tunnels) {
    if (revoked === undefined) continue;
    const onRevoked = (): void => connection.close(revoked.reason);
    if (revoked.aborted) onRevoked();
    revoked.addEventListener("abort", onRevoked, { once: true });
    undo.push(() => revoked.removeEventListener("abort", onRevoked));
  }
  return {
    [Symbol.dispose]: () => {
      for (const remove of undo) remove();
    },
  };
}
