/**
 * The circuit breakers of one cluster (waypoint contract row 41): beyond a limit a request is refused at once; for a connection to come free it
 * waits, as one of the pending. Every worker thread holds its own, so that a process allows as many times the limit as it has threads.
 */
import type { ClusterLimits } from "@fairway/model";
import { waypointError } from "./failure.ts";

export type Limited = "connections" | "pending" | "requests" | "retries";

const limitOf: Readonly<Record<Limited, keyof ClusterLimits>> = {
  connections: "maxConnections",
  pending: "maxPendingRequests",
  requests: "maxRequests",
  retries: "maxRetries",
};

export class Breakers {
  readonly #cluster: string;
  readonly #onOverflow: (what: Limited) => void;
  readonly #taken: Record<Limited, number> = { connections: 0, pending: 0, requests: 0, retries: 0 };
  limits: ClusterLimits;

  constructor(cluster: string, limits: ClusterLimits, onOverflow: (what: Limited) => void = () => undefined) {
    this.#cluster = cluster;
    this.limits = limits;
    this.#onOverflow = onOverflow;
  }

  taken(what: Limited): number {
    return this.#taken[what];
  }

  /** A place, to be given back once by calling the result; undefined when there is none left. */
  tryTake(what: Limited): (() => void) | undefined {
    if (this.#taken[what] >= this.limits[limitOf[what]]) {
      this.#onOverflow(what);
      return undefined;
    }
    return this.count(what);
  }

  /** A place that is there whatever the limit. */
  count(what: Limited): () => void {
    this.#taken[what]++;
    let held = true;
    return () => {
      if (held) this.#taken[what]--;
      held = false;
    };
  }

  /** Throws WAYPOINT_OVERFLOW. */
  take(what: Limited): () => void {
    const place = this.tryTake(what);
    if (place !== undefined) return place;
    throw waypointError("WAYPOINT_OVERFLOW", `${this.#cluster} takes no more: ${limitOf[what]} of ${this.limits[limitOf[what]]} is reached`, {
      details: { bound: what },
    });
  }
}
