/**
 * Passive ejection (Envoy's outlier detection): an endpoint that fails several times in a row is left out for a while, longer each time.
 * Never more than a share of the endpoints, so that a fault of our own does not empty a cluster.
 */
import type { Ejection } from "@fairway/model";

/** How a request to an endpoint ended, for its health. */
export type EndpointOutcome =
  | { readonly kind: "answer"; readonly status: number }
  /** No connection, or one that broke off before the answer was whole. */
  | { readonly kind: "failure" };

/** The health of one endpoint as its traffic shows it. */
export class EndpointHealth {
  #errors = 0;
  #gatewayErrors = 0;
  #ejections = 0;
  #outUntil = 0;
  /** Successes after an ejection forgive it, one at a time. */
  #goodSince = 0;

  isOut(now: number): boolean {
    return now < this.#outUntil;
  }

  get ejections(): number {
    return this.#ejections;
  }

  /** True when the endpoint reached a bound and is to be ejected, if enough others remain. */
  observe(outcome: EndpointOutcome, ejection: Ejection, now: number): boolean {
    const failed = outcome.kind === "failure" || outcome.status >= 500;
    const atGateway = outcome.kind === "failure" || (outcome.status >= 502 && outcome.status <= 504);
    this.#errors = failed ? this.#errors + 1 : 0;
    this.#gatewayErrors = atGateway ? this.#gatewayErrors + 1 : 0;
    if (!failed) this.#forgive(ejection, now);
    const { consecutiveErrors, consecutiveGatewayErrors } = ejection;
    return (
      !this.isOut(now) &&
      ((consecutiveErrors > 0 && this.#errors >= consecutiveErrors) || (consecutiveGatewayErrors > 0 && this.#gatewayErrors >= consecutiveGatewayErrors))
    );
  }

  eject({ baseEjectionMs, maxEjectionMs }: Ejection, now: number): void {
    this.#ejections++;
    this.#outUntil = now + Math.min(baseEjectionMs * this.#ejections, Math.max(baseEjectionMs, maxEjectionMs));
    this.#goodSince = this.#outUntil;
    this.#errors = 0;
    this.#gatewayErrors = 0;
  }

  #forgive({ baseEjectionMs }: Ejection, now: number): void {
    if (this.#ejections === 0 || now - this.#goodSince < baseEjectionMs) return;
    this.#ejections--;
    this.#goodSince = now;
  }
}

/** Whether one more may go: at least one always may, as in Envoy, unless the share is 0. */
export function mayEject(out: number, total: number, { maxEjectedPercent }: Ejection): boolean {
  if (maxEjectedPercent <= 0) return false;
  return out === 0 || ((out + 1) * 100) / total <= maxEjectedPercent;
}
