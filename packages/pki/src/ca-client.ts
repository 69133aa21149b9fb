/** How certificates are asked for: the seam, and the CA in this process that demos and tests use. */
import type { SpiffeId } from "@fairway/model";
import { MeshError } from "@fairway/runtime";
import type { Authority } from "./authority.ts";

export interface CertificateRequest {
  /** PEM. */
  readonly csr: string;
  readonly identity: SpiffeId;
  readonly ttlMs: number;
}

export interface CaClient extends AsyncDisposable {
  /**
   * `[leaf, intermediates…, root bundle]`, PEM; not checked yet.
   * Throws MeshError PKI_CA_UNAVAILABLE (try again), PKI_CA_REFUSED (the CA said no), or the signal's reason.
   */
  sign(request: CertificateRequest, options: { signal: AbortSignal }): Promise<readonly string[]>;
}

/** A CA without a network between: the authority signs at once whatever is asked. The latest authority is asked for at each call. */
export function localCaClient(authority: Authority | (() => Authority)): CaClient {
  const current = typeof authority === "function" ? authority : () => authority;
  return {
    async sign(request, { signal }) {
      signal.throwIfAborted();
      try {
        return current().sign(request);
      } catch (cause) {
        throw new MeshError("PKI_CA_REFUSED", `the CA refused a certificate for ${request.identity}`, { cause });
      }
    },
    async [Symbol.asyncDispose]() {},
  };
}
