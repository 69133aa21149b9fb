/** Which pod addresses the kubelet's probes are let through to, as one table of the node's namespace that is always replaced whole. */
import { applyNft, type NetworkNamespace } from "@fairway/linux";
import { hostRules, hostRulesRemoval } from "./host-rules.ts";
import type { ResolvedProbeSource } from "./probe-source.ts";

export interface HostProbesOptions {
  readonly namespace: NetworkNamespace;
  readonly probeIpv4: string;
  readonly probeIpv6: string;
  readonly source: ResolvedProbeSource;
  /** Applies nft text; the kernel's unless told. */
  readonly apply?: typeof applyNft;
}

export class HostProbes {
  readonly #options: HostProbesOptions;
  /** By pod UID: an address that moved to a new pod does not leave with the old one. */
  readonly #ips = new Map<string, readonly string[]>();
  #turn: Promise<void> = Promise.resolve();

  constructor(options: HostProbesOptions) {
    this.#options = options;
  }

  /** Puts the table in place. */
  install(signal: AbortSignal): Promise<void> {
    return this.#apply(signal);
  }

  async set(uid: string, ips: readonly string[], signal: AbortSignal): Promise<void> {
    const known = this.#ips.get(uid);
    if (known !== undefined && known.length === ips.length && known.every((ip, index) => ip === ips[index])) return;
    this.#ips.set(uid, ips);
    try {
      await this.#apply(signal);
    } catch (thrown) {
      // Not in place: the next attempt must not take it for done.
      this.#ips.delete(uid);
      throw thrown;
    }
  }

  async remove(uid: string, signal: AbortSignal): Promise<void> {
    if (this.#ips.delete(uid)) await this.#apply(signal);
  }

  /** Takes the table out of the node. */
  uninstall(signal: AbortSignal): Promise<void> {
    this.#ips.clear();
    const { namespace, apply = applyNft } = this.#options;
    return this.#inTurn(() => apply(namespace, hostRulesRemoval(), { signal }));
  }

  #apply(signal: AbortSignal): Promise<void> {
    const { namespace, probeIpv4, probeIpv6, source, apply = applyNft } = this.#options;
    return this.#inTurn(() => apply(namespace, hostRules({ probeIpv4, probeIpv6, source, podIps: [...this.#ips.values()].flat() }), { signal }));
  }

  /** One after the other: the text is made when its turn comes, so the last one holds all. */
  #inTurn(run: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(run);
    this.#turn = done.catch(() => {});
    return done;
  }
}
