/** Where a captured connection goes: the outbound and inbound decision trees of ztunnel contract 5 and 5B, as pure functions. */
import type { NetworkId, SocketAddress } from "./address.ts";
import type { SpiffeId } from "./identity.ts";
import type { Service } from "./service.ts";
import type { Snapshot } from "./snapshot.ts";
import type { Workload } from "./workload.ts";

/** What the decision needs to know of the ztunnel that asks. */
export interface ResolveContext {
  readonly snapshot: Snapshot;
  readonly network: NetworkId;
  /** 0 ≤ r < 1, one draw per call; weighted choices use it. */
  readonly random: () => number;
  /** Ports that must never be dialled through the mesh (15001, 15006, 15008, …). */
  readonly ownPorts: ReadonlySet<number>;
}

/** Why a connection is refused before it is dialled. Closed: log reason and metric label. */
export type OutboundDenial =
  | "self-call"
  | "unknown-waypoint"
  | "waypoint-not-ready"
  | "no-healthy-upstream"
  | "no-service-for-target"
  | "unknown-gateway"
  | "no-valid-destination";

/** The next hop of a dial: an address, or a name that must be resolved first (hostname workloads). */
export type NextHop =
  | { readonly kind: "address"; readonly address: SocketAddress }
  | { readonly kind: "hostname"; readonly hostname: string; readonly port: number };

/** What logs and metrics say about the far side. */
export interface OutboundTarget {
  /** The workload dialled: the endpoint, or the waypoint or gateway in front of it. */
  readonly workload: Workload | undefined;
  /** The service that the client asked for. */
  readonly service: Service | undefined;
}

export type OutboundRoute =
  /**
   * Tunnel to `nextHop` (…:15008); the CONNECT asks for `authority`; the peer must prove one of `expected`. To an endpoint known by
   * hostname only, `authority` has that name: whoever resolves it asks for the address it dials instead (ztunnel contract 5.1, step 10).
   */
  | {
      readonly kind: "hbone";
      readonly nextHop: NextHop;
      readonly authority: string;
      readonly expected: readonly SpiffeId[];
      readonly target: OutboundTarget;
      readonly via: "endpoint" | "waypoint";
    }
  /** Across networks: an outer tunnel to the gateway, an inner one to the far workload. Both ask for `authority`. */
  | {
      readonly kind: "double-hbone";
      readonly nextHop: NextHop;
      readonly authority: string;
      readonly expected: readonly SpiffeId[];
      readonly innerExpected: readonly SpiffeId[];
      readonly target: OutboundTarget;
    }
  /** Plain TCP to a workload outside the mesh. */
  | { readonly kind: "tcp"; readonly nextHop: NextHop; readonly target: OutboundTarget }
  /** Plain TCP to the original destination: nobody the mesh knows, or a PASSTHROUGH service. */
  | { readonly kind: "passthrough"; readonly to: SocketAddress; readonly target: OutboundTarget }
  | { readonly kind: "deny"; readonly reason: OutboundDenial; readonly message: string; readonly target: OutboundTarget };

export interface InboundRequest {
  /** The local end of the accepted connection: the pod's own address. */
  readonly local: SocketAddress;
  /** `:authority` of the CONNECT, unparsed. */
  readonly authority: string;
  /** Host of the `forwarded` header, when the client asked for a service. */
  readonly forwardedHost: string | undefined;
}

export type InboundRoute =
  | {
      readonly kind: "accept";
      /** Where the application is dialled; policy is evaluated against exactly this. */
      readonly to: SocketAddress;
      /** Dial from loopback to loopback (application tunnel), without keeping the source address. */
      readonly loopback: boolean;
      /** Write a PROXY v2 header with this destination first. */
      readonly proxyHeader: { readonly destination: SocketAddress } | undefined;
      readonly service: Service | undefined;
    }
  /** `status` is the HTTP status of ztunnel contract 1.6. */
  | { readonly kind: "reject"; readonly status: 400 | 503; readonly reason: InboundRejection; readonly message: string };

export type InboundRejection = "bad-authority" | "ip-mismatch" | "unknown-hostname" | "no-port-mapping" | "self-call" | "no-service-address";
