/** From a pod's question to its answer: the mesh's own names at once, everything else by a resolver (ztunnel contract 8). */
import { ipToBytes, type NameAnswer, type Workload } from "@fairway/model";
import {
  type DnsCode,
  type DnsQuery,
  dnsCodes,
  dnsMaxMessageBytes,
  dnsTypeName,
  dnsTypes,
  dnsUdpLimit,
  encodeDnsAnswer,
  isInternetQuestion,
  readDnsRequest,
} from "@fairway/protocol";
import { type Logger, messageOf } from "@fairway/runtime";
import type { DnsConfig } from "./config.ts";
import { type DnsProtocol, dnsLabels } from "./dns-metrics.ts";
import { DnsUpstream } from "./dns-upstream.ts";
import type { PodScope } from "./pod-scope.ts";

/** What answering needs of a pod. */
export type DnsScope = Pick<PodScope, "config" | "network" | "names" | "local" | "metrics" | "tasks" | "log" | "clock" | "random" | "randomBytes">;

/** Questions of one pod that wait for a resolver; each holds a socket. Past it the answer is a failure, at once. */
export const maxForwardedQuestions = 256;
/** Contract 8. */
const ttlSeconds = 30;

export class DnsResponder {
  readonly #scope: DnsScope;
  readonly #upstream: DnsUpstream;
  readonly #log: Logger;
  #forwarded = 0;

  constructor(scope: DnsScope, { upstreams }: DnsConfig) {
    const { network, clock, randomBytes } = scope;
    this.#scope = scope;
    this.#upstream = new DnsUpstream({ network, servers: upstreams, mark: scope.config.mark, clock, randomBytes });
    this.#log = scope.log.scope("dns");
  }

  /** The reply to what a client sent; undefined when there is nothing to reply to. Rejects only when the pod is no longer served. */
  async respond(bytes: Uint8Array, protocol: DnsProtocol): Promise<Uint8Array | undefined> {
    const request = readDnsRequest(bytes);
    switch (request.kind) {
      case "noise":
        return undefined;
      case "refused":
        return request.refusal;
      case "query":
        return this.#answer(request.query, bytes, protocol);
    }
  }

  async #answer(query: DnsQuery, bytes: Uint8Array, protocol: DnsProtocol): Promise<Uint8Array> {
    const { local, tasks, metrics } = this.#scope;
    let client: Workload | undefined;
    let answer: NameAnswer;
    try {
      client = (await local.fetch({ signal: tasks.signal })).workload;
      metrics.dns.requests.inc(dnsLabels(query.question.type, protocol, client));
      // RFC 6891 section 6.1.3.
      if ((query.extension?.version ?? 0) > 0) return refusal(query, dnsCodes.badVersion, protocol);
      answer = await this.#find(query, client);
    } catch (thrown) {
      tasks.signal.throwIfAborted();
      this.#report(client, query, { result: "failed", error: messageOf(thrown) });
      return refusal(query, dnsCodes.serverFailure, protocol);
    }
    switch (answer.kind) {
      case "foreign":
        return this.#forward(query, bytes, protocol, client);
      case "no-data":
        this.#report(client, query, { result: "empty", endpoints: 0 });
        return reply(query, { addresses: [], canonicalName: undefined }, protocol);
      case "addresses": {
        this.#report(client, query, { result: "success", endpoints: answer.addresses.length });
        const addresses = shuffled(answer.addresses, this.#scope.random).map(ipToBytes);
        return reply(query, { addresses, canonicalName: answer.canonicalName }, protocol);
      }
    }
  }

  /** Waits for nothing but the mesh; whatever else was asked for is a resolver's. */
  async #find({ question }: DnsQuery, { namespace: clientNamespace, network }: Workload): Promise<NameAnswer> {
    const { names, tasks } = this.#scope;
    const family = question.type === dnsTypes.a ? "ipv4" : question.type === dnsTypes.aaaa ? "ipv6" : undefined;
    if (family === undefined || !isInternetQuestion(question)) return { kind: "foreign" };
    return names.resolve({ question: { name: question.name, family }, clientNamespace, network }, { signal: tasks.signal });
  }

  async #forward(query: DnsQuery, bytes: Uint8Array, protocol: DnsProtocol, client: Workload): Promise<Uint8Array> {
    const { metrics, tasks, clock } = this.#scope;
    if (this.#forwarded >= maxForwardedQuestions) {
      metrics.overloads.inc({ bound: "dns-forwarded" });
      return refusal(query, dnsCodes.serverFailure, protocol);
    }
    const labels = dnsLabels(query.question.type, protocol, client);
    const startedAt = clock.monotonic();
    metrics.dns.upstreamRequests.inc(labels);
    this.#forwarded += 1;
    try {
      const answer = await this.#upstream.ask({ query, bytes, protocol }, { signal: tasks.signal });
      this.#report(client, query, { result: "forwarded" });
      return answer;
    } catch (thrown) {
      tasks.signal.throwIfAborted();
      metrics.dns.upstreamFailures.inc(labels);
      this.#report(client, query, { result: "failed", error: messageOf(thrown) });
      return refusal(query, dnsCodes.serverFailure, protocol);
    } finally {
      this.#forwarded -= 1;
      metrics.dns.upstreamSeconds.observe(labels, (clock.monotonic() - startedAt) / 1_000);
    }
  }

  #report(client: Workload | undefined, { question }: DnsQuery, outcome: { result: string; endpoints?: number; error?: string }): void {
    if (!this.#log.enabled("debug")) return;
    this.#log.debug("dns request", {
      "src.workload": client?.name,
      "src.namespace": client?.namespace,
      query: dnsTypeName(question.type),
      domain: question.name,
      ...outcome,
    });
  }
}

function reply(query: DnsQuery, records: { addresses: readonly Uint8Array[]; canonicalName: string | undefined }, protocol: DnsProtocol): Uint8Array {
  return encodeDnsAnswer(query, { ...records, code: dnsCodes.ok, authoritative: true, ttlSeconds }, limitOf(query, protocol));
}

function refusal(query: DnsQuery, code: DnsCode, protocol: DnsProtocol): Uint8Array {
  return encodeDnsAnswer(query, { addresses: [], canonicalName: undefined, code, authoritative: false, ttlSeconds }, limitOf(query, protocol));
}

function limitOf(query: DnsQuery, protocol: DnsProtocol): number {
  return protocol === "udp" ? dnsUdpLimit(query) : dnsMaxMessageBytes;
}

/** Fisher and Yates: every order is as likely as any other, so that clients spread over the addresses. */
function shuffled<T>(items: readonly T[], random: () => number): readonly T[] {
  const order = [...items];
  for (let last = order.length - 1; last > 0; last -= 1) {
    const chosen = Math.floor(random() * (last + 1));
    const [a, b] = [order[last], order[chosen]];
    if (a !== undefined && b !== undefined) [order[last], order[chosen]] = [b, a];
  }
  return order;
}
