/** The CA service: who asks, may they, and then a signature (controller contract 7.1 to 7.3). */
import type { Authority } from "@fairway/pki";
import type { IstioCertificateRequest, IstioCertificateServiceServer } from "@fairway/protocol";
import { type Clock, type Logger, MeshError } from "@fairway/runtime";
import { type ServerUnaryCall, type sendUnaryData, status } from "@grpc/grpc-js";
import type { CallerReview } from "./callers.ts";
import type { ControllerMetrics } from "./metrics.ts";
import { type Authorization, authorizeIdentity, type NodeFacts } from "./node-authorization.ts";

export interface SigningOptions {
  readonly authority: () => Authority;
  readonly callers: CallerReview;
  readonly facts: NodeFacts;
  readonly defaultTtlMs: number;
  readonly maxTtlMs: number;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: ControllerMetrics;
}

/** A pod may be seen by its node before it is seen here; so long is waited before saying no. */
const patienceMs = 2_000;
const patienceStepMs = 100;
/** What a caller is told; the reason is for our log (controller contract 7.2). */
const refusal = "request impersonation authentication failure";

/** An answer for gRPC: the chain, or a status. Never rejects. */
export type SigningOutcome = { readonly chain: readonly string[] } | { readonly code: status; readonly message: string };

export class Signing {
  readonly #options: SigningOptions;

  constructor(options: SigningOptions) {
    this.#options = options;
  }

  /** The gRPC service over it. */
  readonly service: IstioCertificateServiceServer = {
    createCertificate: (
      call: ServerUnaryCall<IstioCertificateRequest, { certChain: readonly string[] }>,
      callback: sendUnaryData<{ certChain: readonly string[] }>,
    ): void => {
      const gone = new AbortController();
      call.on("cancelled", () => gone.abort(new MeshError("CONTROLLER_CALLER_GONE", "the caller went away")));
      // `sign` never rejects.
      void this.sign(call.request, call.metadata.get("authorization")[0]?.toString(), gone.signal).then((outcome) => {
        if ("chain" in outcome) callback(null, { certChain: outcome.chain });
        else callback({ code: outcome.code, details: outcome.message });
      });
    },
  };

  async sign(request: IstioCertificateRequest, authorization: string | undefined, signal: AbortSignal): Promise<SigningOutcome> {
    const { callers, log, metrics, authority, defaultTtlMs, maxTtlMs } = this.#options;
    metrics.csrs.inc();
    const requested = request.metadata?.["ImpersonatedIdentity"];
    try {
      const caller = await callers.authenticate(authorization);
      const verdict = await this.#authorize(caller, typeof requested === "string" ? requested : undefined, signal);
      if (!verdict.allowed) {
        metrics.authenticationFailures.inc();
        log.warn("refused a certificate", {
          code: "CONTROLLER_IDENTITY_REFUSED",
          caller: `${caller.namespace}/${caller.serviceAccount}`,
          pod: caller.podName,
          requested: String(requested ?? ""),
          reason: verdict.reason,
        });
        return { code: status.UNAUTHENTICATED, message: refusal };
      }
      const ttlMs = request.validityDuration > 0 ? request.validityDuration * 1000 : defaultTtlMs;
      if (ttlMs > maxTtlMs) {
        const message = `a lifetime of ${request.validityDuration} s was asked for; at most ${maxTtlMs / 1000} s are given`;
        throw new MeshError("PKI_TTL_TOO_LONG", message);
      }
      const chain = authority().sign({ csr: request.csr, identity: verdict.identity, ttlMs });
      metrics.issued.inc();
      log.debug("signed a certificate", { identity: verdict.identity, node: verdict.node });
      return { chain: chain.map((pem) => (pem.endsWith("\n") ? pem : `${pem}\n`)) };
    } catch (thrown) {
      return this.#failed(MeshError.from(thrown, "CONTROLLER_SIGNING_FAILED"));
    }
  }

  async #authorize(caller: Parameters<typeof authorizeIdentity>[0], requested: string | undefined, signal: AbortSignal): Promise<Authorization> {
    const { clock, facts } = this.#options;
    const deadline = clock.monotonic() + patienceMs;
    for (;;) {
      const verdict = authorizeIdentity(caller, requested, facts);
      if (verdict.allowed || !verdict.mayChange || clock.monotonic() >= deadline) return verdict;
      await clock.sleep(patienceStepMs, { signal });
    }
  }

  #failed(error: MeshError): SigningOutcome {
    const { log, metrics } = this.#options;
    if (error.code === "CONTROLLER_CALLER_GONE") return { code: status.CANCELLED, message: error.message };
    if (error.code === "CONTROLLER_UNAUTHENTICATED") {
      metrics.authenticationFailures.inc();
      log.warn("refused a certificate", { error, code: error.code });
      return { code: status.UNAUTHENTICATED, message: "authentication failure" };
    }
    if (error.code.startsWith("PKI_CSR") || error.code === "PKI_KEY_TYPE" || error.code === "PKI_TTL_TOO_LONG") {
      metrics.csrErrors.inc();
      log.warn("refused a request", { error, code: error.code });
      return { code: status.INVALID_ARGUMENT, message: error.message };
    }
    log.error("could not sign", { error, code: error.code });
    return error.code.startsWith("KUBE_")
      ? { code: status.UNAVAILABLE, message: "the caller cannot be checked now; try again" }
      : { code: status.INTERNAL, message: "signing failed" };
  }
}
