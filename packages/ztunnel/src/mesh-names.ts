/**
 * What a name of the mesh stands for, asked where the mesh is held. A client may ask for any name, and each is looked for in many forms: a
 * thread that does not hold the mesh therefore keeps nothing of it, and asks once for each question.
 */
import { kubernetesSearchDomains, type NameAnswer, type NameQuestion, type NetworkId, resolveName, type Snapshot } from "@fairway/model";
import { type Clock, withDeadline } from "@fairway/runtime";
import type { DnsConfig } from "./config.ts";
import { ztunnelError } from "./failure.ts";

export interface NameRequest {
  readonly question: NameQuestion;
  readonly clientNamespace: string;
  readonly network: NetworkId;
}

export interface MeshNames {
  /** Throws ZTUNNEL_MESH_UNANSWERED when nothing comes, or the signal's reason. */
  resolve(request: NameRequest, options: { signal: AbortSignal }): Promise<NameAnswer>;
}

/** The answer from the mesh as it is. */
export function answerName(snapshot: Snapshot, config: DnsConfig | undefined, { question, clientNamespace, network }: NameRequest): NameAnswer {
  if (config === undefined) return { kind: "foreign" };
  const { clusterDomain, preferredNamespace, ipv6 } = config;
  const searchDomains = config.searchDomains ?? kubernetesSearchDomains(clientNamespace, clusterDomain);
  const answer = resolveName(question, { snapshot, clientNamespace, network, clusterDomain, searchDomains, preferredNamespace });
  return answer.kind === "addresses" && question.family === "ipv6" && !ipv6 ? { kind: "no-data" } : answer;
}

/** Questions of one thread on their way at a time: however fast clients ask, the thread that holds the mesh gets to its other work. */
const maxOnTheWay = 64;
const maxWaiting = 4_096;
/** As for every other question about the mesh. */
const answerTimeoutMs = 5_000;

/** Asks another thread. */
export class AskedNames implements MeshNames {
  readonly #ask: (id: number, request: NameRequest) => void;
  readonly #clock: Clock;
  readonly #onTheWay = new Map<number, (answer: NameAnswer) => void>();
  readonly #waiting: { readonly request: NameRequest; readonly settle: (answer: NameAnswer) => void }[] = [];
  #nextId = 1;

  constructor(options: { ask: (id: number, request: NameRequest) => void; clock: Clock }) {
    this.#ask = options.ask;
    this.#clock = options.clock;
  }

  resolve(request: NameRequest, { signal }: { signal: AbortSignal }): Promise<NameAnswer> {
    if (this.#waiting.length >= maxWaiting) return Promise.reject(ztunnelError("ZTUNNEL_MESH_UNANSWERED", "too many names are asked for at once"));
    const { promise, resolve: settle } = Promise.withResolvers<NameAnswer>();
    this.#waiting.push({ request, settle });
    this.#send();
    const reason = ztunnelError("ZTUNNEL_MESH_UNANSWERED", `the mesh was not heard of within ${answerTimeoutMs} ms; is this process starved of CPU?`);
    return withDeadline({ clock: this.#clock, signal, afterMs: answerTimeoutMs, reason }, () => promise);
  }

  /** What the other thread says. Every question that was sent is answered. */
  settle(id: number, answer: NameAnswer): void {
    this.#onTheWay.get(id)?.(answer);
    this.#onTheWay.delete(id);
    this.#send();
  }

  #send(): void {
    while (this.#onTheWay.size < maxOnTheWay) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      const id = this.#nextId++;
      this.#onTheWay.set(id, next.settle);
      this.#ask(id, next.request);
    }
  }
}
