/**
 * Hands certificates to the threads that carry traffic: fetched, shared and rotated by the one source of the process, posted by structured
 * clone. A key goes to threads of this process that asked for its identity, and nowhere else.
 */
import type { SpiffeId } from "@fairway/model";
import { type CertificateParts, type CertificateSource, type CertificateState, detachCertificate, type WorkloadCertificate } from "@fairway/pki";
import { type Logger, messageOf, TaskGroup } from "@fairway/runtime";

export type CertificateNews =
  | { readonly kind: "held"; readonly parts: CertificateParts }
  /** What was held is no longer; `message` says why an asked one did not come. */
  | { readonly kind: "lost"; readonly identity: SpiffeId; readonly message: string };

/** One thread's side of the conversation. */
export interface CertificateSession extends Disposable {
  ask(identity: SpiffeId): void;
}

interface Session {
  readonly send: (news: CertificateNews) => void;
  /** What the thread has. */
  readonly held: Map<SpiffeId, WorkloadCertificate>;
}

export class CertificateDesk implements AsyncDisposable {
  readonly #certificates: CertificateSource;
  readonly #sessions = new Set<Session>();
  readonly #tasks: TaskGroup;
  readonly #subscription: Disposable;

  constructor({ certificates, log }: { certificates: CertificateSource; log: Logger }) {
    this.#certificates = certificates;
    this.#tasks = new TaskGroup(log);
    this.#subscription = certificates.states.subscribe((states) => {
      for (const session of this.#sessions) this.#follow(session, states);
    });
  }

  /** `send` must not throw. */
  open(send: (news: CertificateNews) => void): CertificateSession {
    const session: Session = { send, held: new Map() };
    this.#sessions.add(session);
    return {
      ask: (identity) => this.#tasks.run("handing over a certificate", () => this.#hand(session, identity)),
      [Symbol.dispose]: () => void this.#sessions.delete(session),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#subscription[Symbol.dispose]();
    this.#sessions.clear();
    await this.#tasks[Symbol.asyncDispose]();
  }

  async #hand(session: Session, identity: SpiffeId): Promise<void> {
    try {
      give(session, await this.#certificates.fetch(identity, { signal: this.#tasks.signal, priority: "realtime" }));
    } catch (thrown) {
      session.send({ kind: "lost", identity, message: messageOf(thrown) });
    }
  }

  /** A rotated certificate replaces the one before; one that was forgotten or has expired is taken back. */
  #follow(session: Session, states: ReadonlyMap<SpiffeId, CertificateState>): void {
    for (const [identity, held] of session.held) {
      const state = states.get(identity);
      const now = state === undefined || state.kind === "initializing" ? undefined : state.certificate;
      if (now === held) continue;
      if (now !== undefined) give(session, now);
      else {
        session.held.delete(identity);
        session.send({ kind: "lost", identity, message: "it has expired, or its last pod left" });
      }
    }
  }
}

function give(session: Session, certificate: WorkloadCertificate): void {
  session.held.set(certificate.identity, certificate);
  session.send({ kind: "held", parts: detachCertificate(certificate) });
}
