/** Netfilter rules as text, applied in one transaction. */
import { MeshError, messageOf } from "@fairway/runtime";
import { runIn } from "./command.ts";
import type { NetworkNamespace } from "./namespace.ts";

/**
 * Applies an nft script in `namespace`, whole or not at all. Throws LINUX_NFT_FAILED with nft's own words, or the signal's reason.
 */
export async function applyNft(namespace: NetworkNamespace | undefined, text: string, { signal }: { readonly signal: AbortSignal }): Promise<void> {
  try {
    await runIn(namespace, ["nft", "-f", "-"], { input: text, signal });
  } catch (cause) {
    signal.throwIfAborted();
    throw new MeshError("LINUX_NFT_FAILED", `the rules were not applied: ${messageOf(cause)}`, { cause });
  }
}
