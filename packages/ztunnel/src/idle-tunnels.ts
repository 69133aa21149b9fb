/**
 * Inbound tunnels that carry no stream, of all pods of a thread. Whoever proved an identity may hold tunnels, and the reference lets it hold any
 * number for ever; here the oldest ones are sent away by GOAWAY, beyond a number and after a time. New ones are never refused for their sake, and
 * an honest peer opens another one when it needs it.
 */
import type { ServerTunnel } from "@fairway/hbone";
import type { SpiffeId } from "@fairway/model";
import type { Clock } from "@fairway/runtime";
import type { ZtunnelMetrics } from "./metrics.ts";

export interface IdleTunnelLimits {
  /** Tunnels without a stream, of everybody together. */
  readonly maxIdleTunnels: number;
  /** Those of one identity, so that one peer does not cost all others theirs. */
  readonly maxIdleTunnelsOfPeer: number;
  /** How long a tunnel may be without a stream: longer than clients keep theirs, who know better when they need them. */
  readonly inboundIdleMs: number;
}

export interface IdleTunnelsOptions {
  readonly clock: Clock;
  readonly limits: IdleTunnelLimits;
  readonly metrics: Pick<ZtunnelMetrics, "overloads">;
}

/** From the GOAWAY to the end of a tunnel that still carries nothing: an honest peer lets go within a round trip. */
const lingerMs = 10_000;

/** The server's end of a tunnel. */
type Ends = Pick<ServerTunnel, "drain" | "destroy">;

/** One tunnel, told of its streams; dispose when it is gone. */
export interface TunnelUse extends Disposable {
  began(): void;
  ended(): void;
}

interface Entry {
  readonly peer: SpiffeId;
  readonly tunnel: Ends;
  streams: number;
  idleSince: number;
}

export class IdleTunnels {
  readonly #clock: Clock;
  readonly #limits: IdleTunnelLimits;
  readonly #metrics: IdleTunnelsOptions["metrics"];
  /** Idle for longest first. */
  readonly #idle = new Set<Entry>();
  /** The same by peer, in the same order. */
  readonly #ofPeer = new Map<SpiffeId, Set<Entry>>();
  #timer: Disposable | undefined;

  constructor({ clock, limits, metrics }: IdleTunnelsOptions) {
    this.#clock = clock;
    this.#limits = limits;
    this.#metrics = metrics;
  }

  /** A tunnel that `peer` has proven itself for, from its beginning. */
  follow(peer: SpiffeId, tunnel: Ends): TunnelUse {
    const entry: Entry = { peer, tunnel, streams: 0, idleSince: 0 };
    this.#rest(entry);
    return {
      began: () => {
        entry.streams += 1;
        if (entry.streams === 1) this.#remove(entry);
      },
      ended: () => {
        entry.streams -= 1;
        if (entry.streams === 0) this.#rest(entry);
      },
      [Symbol.dispose]: () => {
        // A stream that ends after its tunnel brings nothing back.
        entry.streams = Number.NaN;
        this.#remove(entry);
      },
    };
  }

  #rest(entry: Entry): void {
    entry.idleSince = this.#clock.monotonic();
    this.#idle.add(entry);
    const ofPeer = this.#ofPeer.get(entry.peer) ?? new Set();
    this.#ofPeer.set(entry.peer, ofPeer.add(entry));
    if (ofPeer.size > this.#limits.maxIdleTunnelsOfPeer) this.#sendAwayOldest(ofPeer, "idle-tunnels-of-peer");
    if (this.#idle.size > this.#limits.maxIdleTunnels) this.#sendAwayOldest(this.#idle, "idle-tunnels");
    this.#watchOldest();
  }

  #remove(entry: Entry): void {
    this.#idle.delete(entry);
    const ofPeer = this.#ofPeer.get(entry.peer);
    ofPeer?.delete(entry);
    if (ofPeer?.size === 0) this.#ofPeer.delete(entry.peer);
  }

  #sendAwayOldest(tunnels: Set<Entry>, bound: string): void {
    const [oldest] = tunnels;
    if (oldest === undefined) return;
    this.#metrics.overloads.inc({ bound });
    this.#sendAway(oldest);
  }

  /** Streams that cross the GOAWAY are served; whoever answers it with nothing is cut off. */
  #sendAway(entry: Entry): void {
    this.#remove(entry);
    entry.tunnel.drain();
    this.#clock.schedule(lingerMs, () => {
      if (entry.streams === 0) entry.tunnel.destroy();
    });
  }

  /** One timer for all: they are in the order in which their time is over. A tunnel that was used since is only looked at late. */
  #watchOldest(): void {
    const [oldest] = this.#idle;
    if (oldest === undefined || this.#timer !== undefined) return;
    const dueMs = oldest.idleSince + this.#limits.inboundIdleMs - this.#clock.monotonic();
    this.#timer = this.#clock.schedule(Math.max(dueMs, 0), () => {
      this.#timer = undefined;
      this.#sendAwayDue();
      this.#watchOldest();
    });
  }

  #sendAwayDue(): void {
    const due = this.#clock.monotonic() - this.#limits.inboundIdleMs;
    for (const entry of this.#idle) {
      if (entry.idleSince > due) return;
      this.#sendAway(entry);
    }
  }
}
