/** What is known of one connection while it lives: the facts that the log, the metrics and the config dump all speak about. */

import type { Baggage } from "@fairway/hbone";
import type { Service, SocketAddress, SpiffeId, Workload } from "@fairway/model";

export type Direction = "inbound" | "outbound";

/** One end. What the mesh knows wins over what the peer says of itself. */
export interface End {
  readonly workload: Workload | undefined;
  /** Proven by a certificate, or demanded of the peer by us; undefined in plaintext. */
  readonly identity: SpiffeId | undefined;
  /** Unproven; for labels only. */
  readonly baggage: Baggage | undefined;
}

export interface ConnectionRecord {
  readonly direction: Direction;
  readonly source: SocketAddress;
  /** Outbound: the next hop. Inbound: the address the connection came to. `ip:port` or `name:port`. */
  readonly destination: string;
  /** `:authority` of the CONNECT, when there is one. */
  readonly authority: string | undefined;
  readonly from: End;
  readonly to: End;
  readonly service: Pick<Service, "name" | "namespace" | "hostname"> | undefined;
  /** Both ends proved who they are. */
  readonly mutualTls: boolean;
}

/** Bytes are counted from the client's side: what it sent and what it received. */
export interface ConnectionOutcome {
  readonly clientToServer: number;
  readonly serverToClient: number;
  readonly error: Error | undefined;
}

/** An end nobody knows anything of. */
export const unknownEnd: End = { workload: undefined, identity: undefined, baggage: undefined };
