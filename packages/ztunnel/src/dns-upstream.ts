/**
 * Questions that are not the mesh's, asked of the resolvers of this ztunnel from inside the pod (ztunnel contract 8): a resolver sees the
 * pod's own address. A question is asked again, of the next resolver if there is one, when one is silent; whoever answers first counts.
 *
 * Nobody but the resolver can answer: each try over UDP has a socket of its own, so a port that the kernel drew, a random number, and
 * takes only what comes from the resolver's address and repeats the question (RFC 5452).
 */
import type { PodNetwork } from "@fairway/linux";
import { formatSocketAddress, ipFamily, type SocketAddress, tryParseIp } from "@fairway/model";
import { type DnsQuery, isDnsResponseTo, relayedDnsResponse, withDnsId } from "@fairway/protocol";
import { type Clock, withDeadline } from "@fairway/runtime";
import { DnsFrames, dnsFrame } from "./dns-frames.ts";
import type { DnsProtocol } from "./dns-metrics.ts";
import { ztunnelError } from "./failure.ts";

/** From the question to its failure: what the resolvers of pods wait. */
const dnsUpstreamTimeoutMs = 5_000;
/** Silence after which the question is asked once more. */
const retryAfterMs = 1_500;
/** A question is asked so often at most. */
const maxTries = 3;
/** For how long a resolver that was silent is asked last. */
const troubledMs = 10_000;
/** Datagrams that are no answer before the socket is given up: somebody is guessing. */
const maxStrangers = 16;

export interface DnsUpstreamOptions {
  readonly network: PodNetwork;
  readonly servers: readonly SocketAddress[];
  /** SO_MARK of sockets in the pod: what has it is not redirected. */
  readonly mark: number;
  readonly clock: Clock;
  readonly randomBytes: (size: number) => Uint8Array;
}

interface Try {
  readonly server: SocketAddress;
  readonly query: DnsQuery;
  /** As the client sent it. */
  readonly bytes: Uint8Array;
  readonly protocol: DnsProtocol;
}

export class DnsUpstream {
  readonly #options: DnsUpstreamOptions;
  /** By address, until when a resolver is asked last. */
  readonly #troubled = new Map<string, number>();

  constructor(options: DnsUpstreamOptions) {
    this.#options = options;
  }

  /** The answer for the client, whatever its code says. Throws ZTUNNEL_DNS_UPSTREAM, or the signal's reason. */
  async ask(question: Omit<Try, "server">, { signal }: { signal: AbortSignal }): Promise<Uint8Array> {
    const { clock } = this.#options;
    const reason = ztunnelError("ZTUNNEL_DNS_UPSTREAM", `no resolver answered within ${dnsUpstreamTimeoutMs} ms`);
    const over = new AbortController();
    try {
      const limit = { clock, signal, afterMs: dnsUpstreamTimeoutMs, reason };
      return await withDeadline(limit, (late) => this.#first(question, AbortSignal.any([late, over.signal])));
    } finally {
      // The other tries end with the first answer.
      over.abort(reason);
    }
  }

  async #first(question: Omit<Try, "server">, signal: AbortSignal): Promise<Uint8Array> {
    const servers = this.#inOrder();
    if (servers.length === 0) throw ztunnelError("ZTUNNEL_DNS_UPSTREAM", "no resolver is known; is there a nameserver in resolv.conf?");
    const tries: Promise<Uint8Array>[] = [];
    for (const server of servers) tries.push(this.#tryAfter(tries.at(-1), { ...question, server }, signal));
    try {
      return await Promise.any(tries);
    } catch (thrown) {
      signal.throwIfAborted();
      throw thrown instanceof AggregateError ? thrown.errors.at(-1) : thrown;
    }
  }

  /** Each resolver once, silent ones last; a lone one twice. */
  #inOrder(): readonly SocketAddress[] {
    const now = this.#options.clock.monotonic();
    const silent = ({ ip }: SocketAddress): number => ((this.#troubled.get(ip) ?? 0) > now ? 1 : 0);
    const servers = this.#options.servers.slice(0, maxTries).toSorted((a, b) => silent(a) - silent(b));
    return servers.length === 1 ? [...servers, ...servers] : servers;
  }

  /** Begins when the try before it has failed, or was silent for a while. */
  async #tryAfter(before: Promise<Uint8Array> | undefined, attempt: Try, signal: AbortSignal): Promise<Uint8Array> {
    const { clock } = this.#options;
    if (before !== undefined) {
      const failed = before.then(
        () => new Promise<never>(() => {}),
        () => {},
      );
      const waiting = new AbortController();
      await Promise.race([failed, clock.sleep(retryAfterMs, { signal: AbortSignal.any([signal, waiting.signal]) })]).finally(() => waiting.abort());
    }
    signal.throwIfAborted();
    using _watch = clock.schedule(retryAfterMs, () => this.#troubled.set(attempt.server.ip, clock.monotonic() + troubledMs));
    const answer = await (attempt.protocol === "udp" ? this.#overUdp(attempt, signal) : this.#overTcp(attempt, signal));
    this.#troubled.delete(attempt.server.ip);
    return relayedDnsResponse(answer, attempt.query);
  }

  async #overUdp({ server, query, bytes }: Try, signal: AbortSignal): Promise<Uint8Array> {
    const { network, mark } = this.#options;
    const id = this.#id();
    const socket = await network.datagrams({ host: ipFamily(server.ip) === "ipv6" ? "::" : "0.0.0.0", port: 0, mark });
    using pending = new PendingAnswer(server, signal);
    let strangers = 0;
    socket.on("error", pending.fail);
    socket.on("message", (answer, from) => {
      const known = from.port === server.port && tryParseIp(from.address) === server.ip;
      if (known && isDnsResponseTo(query, id, answer)) pending.settle(answer);
      else if (++strangers >= maxStrangers) pending.fail(ztunnelError("ZTUNNEL_DNS_UPSTREAM", "too many datagrams that are no answer: somebody is guessing"));
    });
    try {
      // Connected: nothing from elsewhere comes in, and a port where nobody listens is an error at once.
      socket.connect(server.port, server.ip, (error?: Error) => {
        if (error !== undefined) pending.fail(error);
        else if (!pending.over) socket.send(withDnsId(bytes, id), (unsent) => unsent && pending.fail(unsent));
      });
      return await pending.answer;
    } finally {
      socket.close();
    }
  }

  async #overTcp({ server, query, bytes }: Try, signal: AbortSignal): Promise<Uint8Array> {
    const { network, mark } = this.#options;
    const id = this.#id();
    const { socket } = await network.dial({ host: server.ip, port: server.port, mark, timeoutMs: dnsUpstreamTimeoutMs, signal });
    using pending = new PendingAnswer(server, signal);
    const frames = new DnsFrames();
    socket.on("close", () => pending.fail(ztunnelError("ZTUNNEL_DNS_UPSTREAM", "it closed the connection")));
    socket.on("data", (chunk: Buffer) => {
      frames.feed(chunk);
      const answer = frames.next();
      if (answer === undefined) return;
      if (isDnsResponseTo(query, id, answer)) pending.settle(answer);
      else pending.fail(ztunnelError("ZTUNNEL_DNS_UPSTREAM", "it answered another question"));
    });
    try {
      socket.write(dnsFrame(withDnsId(bytes, id)));
      socket.resume();
      return await pending.answer;
    } finally {
      socket.destroy();
    }
  }

  #id(): number {
    const [high = 0, low = 0] = this.#options.randomBytes(2);
    return (high << 8) | low;
  }
}

/** The wait of one try: over with the answer, a failure, or the signal, whichever comes first. */
class PendingAnswer implements Disposable {
  readonly answer: Promise<Uint8Array>;
  readonly settle: (answer: Uint8Array) => void;
  readonly fail: (cause: Error) => void;
  readonly #signal: AbortSignal;
  readonly #onAbort: () => void;
  #over = false;

  constructor(server: SocketAddress, signal: AbortSignal) {
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    this.answer = promise;
    this.#signal = signal;
    this.settle = resolve;
    this.fail = (cause) => reject(ztunnelError("ZTUNNEL_DNS_UPSTREAM", `the resolver ${formatSocketAddress(server)} did not answer: ${cause.message}`, cause));
    this.#onAbort = () => reject(signal.reason);
    if (signal.aborted) this.#onAbort();
    else signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** Whether nobody waits any more: the socket is closed, or will be at once. */
  get over(): boolean {
    return this.#over || this.#signal.aborted;
  }

  [Symbol.dispose](): void {
    this.#over = true;
    this.#signal.removeEventListener("abort", this.#onAbort);
  }
}
