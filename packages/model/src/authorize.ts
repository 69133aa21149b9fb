/** May this connection be? The L4 policy decision of ztunnel contract 6, failing closed on policies that are not known. */
import type { SocketAddress } from "./address.ts";
import type { SpiffeId } from "./identity.ts";
import type { PolicyKey } from "./workload.ts";

export interface ConnectionFacts {
  /** The TCP peer. */
  readonly source: SocketAddress;
  /** The application's address and final port; never a VIP, never 15008. */
  readonly destination: SocketAddress;
  /** Undefined for plaintext. */
  readonly identity: SpiffeId | undefined;
}

/** A permit carries what the log and the metrics say about why the connection may be. */
export type Verdict =
  | { readonly allowed: true; readonly policy: PolicyKey | undefined; readonly dryRun: readonly DryRunResult[] }
  | {
      readonly allowed: false;
      readonly reason: DenialReason;
      readonly policy: PolicyKey | undefined;
      readonly message: string;
      readonly dryRun: readonly DryRunResult[];
    };

export type DenialReason = "explicitly-denied" | "not-allowed" | "policy-unknown";

export interface DryRunResult {
  readonly policy: PolicyKey;
  readonly effect: "would-deny" | "would-allow" | "would-not-allow";
}
