/** The certificates of a thread: asked of the thread that has them all, kept until that one says otherwise. */
import type { SpiffeId } from "@fairway/model";
import { attachCertificate, type CertificateSource, type WorkloadCertificate } from "@fairway/pki";
import { type Clock, MeshError } from "@fairway/runtime";
import type { CertificateNews } from "./certificate-desk.ts";

interface Asked {
  readonly answered: Promise<WorkloadCertificate>;
  readonly resolve: (certificate: WorkloadCertificate) => void;
  readonly reject: (reason: Error) => void;
}

export class HandedCertificates implements Pick<CertificateSource, "fetch"> {
  readonly #ask: (identity: SpiffeId) => void;
  readonly #clock: Clock;
  readonly #held = new Map<SpiffeId, WorkloadCertificate>();
  readonly #asked = new Map<SpiffeId, Asked>();

  constructor(options: { ask: (identity: SpiffeId) => void; clock: Clock }) {
    this.#ask = options.ask;
    this.#clock = options.clock;
  }

  /** Throws PKI_CERTIFICATE_UNAVAILABLE with what kept it away, or the signal's reason. */
  async fetch(identity: SpiffeId, { signal }: { signal: AbortSignal }): Promise<WorkloadCertificate> {
    signal.throwIfAborted();
    const held = this.#held.get(identity);
    if (held !== undefined && held.notAfter > this.#clock.now()) return held;
    let asked = this.#asked.get(identity);
    if (asked === undefined) {
      const { promise, resolve, reject } = Promise.withResolvers<WorkloadCertificate>();
      promise.catch(() => {});
      asked = { answered: promise, resolve, reject };
      this.#asked.set(identity, asked);
      this.#ask(identity);
    }
    const { answered } = asked;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => reject(signal.reason);
      signal.addEventListener("abort", onAbort, { once: true });
      answered.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
    });
  }

  /** What the thread that has them all says. */
  apply(news: CertificateNews): void {
    if (news.kind === "lost") {
      this.#held.delete(news.identity);
      this.#settle(news.identity, (asked) => asked.reject(new MeshError("PKI_CERTIFICATE_UNAVAILABLE", news.message)));
      return;
    }
    const certificate = attachCertificate(news.parts);
    this.#held.set(certificate.identity, certificate);
    this.#settle(certificate.identity, (asked) => asked.resolve(certificate));
  }

  #settle(identity: SpiffeId, end: (asked: Asked) => void): void {
    const asked = this.#asked.get(identity);
    if (asked === undefined) return;
    this.#asked.delete(identity);
    end(asked);
  }
}
