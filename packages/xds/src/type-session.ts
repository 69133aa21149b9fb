/**
 * What one client knows and still has to be told about one type. No I/O and no order between types; that is the session's.
 * Every pending name carries the epoch of the batch it came with, so that the session can hold back what came later.
 */
import type { DeltaDiscoveryRequest } from "@fairway/protocol";
import { parseAddressName, parseRangeName, rangeHolds } from "./address-names.ts";
import type { ResourceSource, ServedResource } from "./mesh-source.ts";

/** Everything, on a new subscription, from one epoch on. */
type Pending = Map<string, number>;

interface InFlight {
  readonly nonce: string;
  readonly upserts: ReadonlySet<string>;
  /** Oldest epoch among the upserts; nothing of a later type may pass it. */
  readonly epoch: number;
}

export interface TypeBatch {
  readonly resources: readonly ServedResource[];
  readonly removed: readonly string[];
}

export type Answer = { readonly kind: "ack" } | { readonly kind: "nack"; readonly message: string; readonly rejected: ReadonlyMap<string, string> };

export class TypeSession {
  readonly source: ResourceSource;
  subscribed = false;
  #wildcard = false;
  /** Asked for by name: primary names and aliases, and the primary names that aliases led to. */
  readonly #names = new Set<string>();
  /** Versions the client kept from an earlier stream; forgotten once the first answer is written. */
  #retained = new Map<string, string>();
  #fullFrom: number | undefined;
  /** A response is owed even if it is empty: the client waits for it. */
  #owed = false;
  readonly #upserts: Pending = new Map();
  readonly #removals: Pending = new Map();
  /** To be sent again once they are asked for, whatever the client kept of them. */
  readonly #expected = new Set<string>();
  /** Asked for, and not there: said at once, because nobody can depend on what never was. */
  readonly #absent = new Set<string>();
  #inFlight: InFlight | undefined;

  constructor(source: ResourceSource) {
    this.source = source;
  }

  get inFlight(): boolean {
    return this.#inFlight !== undefined;
  }

  get wildcard(): boolean {
    return this.#wildcard;
  }

  get subscriptions(): number {
    return this.#names.size;
  }

  /** Nothing to say and nothing unanswered. */
  get idle(): boolean {
    return (
      this.#inFlight === undefined &&
      this.#fullFrom === undefined &&
      !this.#owed &&
      this.#upserts.size === 0 &&
      this.#removals.size === 0 &&
      this.#absent.size === 0
    );
  }

  /** The oldest epoch of an upsert the client has not answered yet; infinite when there is none. */
  get unsettled(): number {
    let oldest = Math.min(this.#inFlight?.epoch ?? Number.POSITIVE_INFINITY, this.#fullFrom ?? Number.POSITIVE_INFINITY);
    for (const epoch of this.#upserts.values()) oldest = Math.min(oldest, epoch);
    return oldest;
  }

  get hasRemovals(): boolean {
    return this.#removals.size > 0;
  }

  /** The subscription part of a request (controller contract 6.3). False when it asks for more names than `maxNames`. */
  request({ resourceNamesSubscribe, resourceNamesUnsubscribe, initialResourceVersions }: DeltaDiscoveryRequest, epoch: number, maxNames: number): boolean {
    if (!this.subscribed) {
      this.subscribed = true;
      this.#owed = true;
      this.#retained = new Map(initialResourceVersions);
      for (const name of this.#expected) this.#retained.delete(name);
      this.#expected.clear();
      // "*" together with its own removal means: subscribe to nothing yet (ztunnel contract 3.3).
      const onDemand = resourceNamesUnsubscribe.includes("*");
      this.#wildcard = !onDemand && (resourceNamesSubscribe.length === 0 || resourceNamesSubscribe.includes("*"));
      if (this.#wildcard) this.#fullFrom = epoch;
      else for (const name of initialResourceVersions.keys()) this.#ask(name, epoch);
    } else if (resourceNamesSubscribe.includes("*") && !resourceNamesUnsubscribe.includes("*") && !this.#wildcard) {
      this.#wildcard = true;
      this.#fullFrom = epoch;
    }
    for (const name of resourceNamesSubscribe) if (name !== "*") this.#ask(name, epoch);
    for (const name of resourceNamesUnsubscribe) {
      if (name === "*") this.#wildcard = false;
      else this.#forget(name, epoch);
    }
    return this.#names.size <= maxNames;
  }

  /** Names that changed at the source with the batch of `epoch`. */
  changed(names: ReadonlySet<string>, epoch: number): void {
    if (!this.subscribed) return;
    for (const name of names) {
      if (this.#wildcard || this.#names.has(name)) this.#queue(name, epoch);
      // One of those asked for by another name: it comes with all that belongs to it.
      else if (this.#concerns(name)) this.#ask(name, epoch);
    }
  }

  /** Sends `names` again although they did not change, where the client subscribed to them: it waits for them (waypoint contract 4.4). */
  repeat(names: Iterable<string>, epoch: number): void {
    for (const name of names) {
      if (!this.subscribed) this.#expected.add(name);
      if (this.source.get(name) === undefined || !this.subscribed || !this.#concerns(name)) continue;
      this.#retained.delete(name);
      if (!this.#upserts.has(name) && this.#fullFrom === undefined) this.#queue(name, epoch);
    }
  }

  /**
   * Takes what may be sent now: upserts older than `barrier`, and removals older than `removalBarrier`, except `stale` names, which
   * changed again and will be queued with a later epoch. A full state is never taken with holes: it waits for the stale names.
   * Undefined when there is nothing to send, or an answer is awaited.
   */
  take({ barrier, removalBarrier, stale }: { barrier: number; removalBarrier: number; stale: ReadonlySet<string> }): TypeBatch | undefined {
    if (!this.subscribed || this.#inFlight !== undefined) return undefined;
    if (this.#fullFrom !== undefined) {
      if (this.#fullFrom >= barrier || stale.size > 0) return undefined;
      this.#expandFull(this.#fullFrom);
    }
    const resources: ServedResource[] = [];
    for (const [name, epoch] of this.#upserts) {
      if (epoch >= barrier || stale.has(name)) continue;
      this.#upserts.delete(name);
      const resource = this.source.get(name);
      if (resource !== undefined && this.#retained.get(resource.name) !== resource.version) resources.push(resource);
    }
    const removed: string[] = [];
    for (const name of this.#absent) {
      if (stale.has(name)) continue;
      this.#absent.delete(name);
      removed.push(name);
    }
    for (const [name, epoch] of this.#removals) {
      if (epoch >= removalBarrier || stale.has(name)) continue;
      this.#removals.delete(name);
      removed.push(name);
    }
    if (resources.length === 0 && removed.length === 0 && !(this.#owed && this.#upserts.size === 0)) return undefined;
    this.#owed = false;
    return { resources, removed };
  }

  sent(nonce: string, { resources }: TypeBatch, epoch: number): void {
    const upserts = new Set(resources.map(({ name }) => name));
    for (const name of upserts) this.#retained.delete(name);
    this.#inFlight = { nonce, upserts, epoch: upserts.size > 0 ? epoch : Number.POSITIVE_INFINITY };
    if (this.#upserts.size === 0) this.#retained.clear();
  }

  /** The answer to what is in flight; undefined for a request that answers nothing, or something long gone. */
  answered({ responseNonce, errorDetail }: DeltaDiscoveryRequest): (Answer & { readonly names: ReadonlySet<string> }) | undefined {
    if (this.#inFlight === undefined || responseNonce !== this.#inFlight.nonce) return undefined;
    const names = this.#inFlight.upserts;
    this.#inFlight = undefined;
    if (errorDetail === undefined) return { kind: "ack", names };
    return { kind: "nack", names, message: errorDetail.message, rejected: rejectedNames(errorDetail.message, names) };
  }

  /** A name that everything covers as well is answered: the client wants to know what it still holds under it (waypoint contract 4.3). */
  #forget(name: string, epoch: number): void {
    const named = this.#names.delete(name);
    if (this.#wildcard) {
      if (named) this.#answerFor(name, epoch);
      return;
    }
    this.#upserts.delete(name);
    this.#removals.delete(name);
    this.#absent.delete(name);
  }

  #ask(name: string, epoch: number): void {
    this.#names.add(name);
    let found = false;
    for (const resource of this.source.matching(name)) {
      found = true;
      this.#names.add(resource.name);
      this.#answerFor(resource.name, epoch);
    }
    if (!found) this.#answerFor(name, epoch);
  }

  #answerFor(name: string, epoch: number): void {
    this.#owed = true;
    const held = this.#removals.has(name) || (this.#retained.get(name) ?? "") !== "";
    if (this.source.get(name) === undefined && !held) this.#absent.add(name);
    else this.#queue(name, epoch);
  }

  #queue(name: string, epoch: number): void {
    this.#upserts.delete(name);
    this.#removals.delete(name);
    this.#absent.delete(name);
    (this.source.get(name) === undefined ? this.#removals : this.#upserts).set(name, epoch);
  }

  #concerns(name: string): boolean {
    if (this.#wildcard || this.#names.has(name)) return true;
    const resource = this.source.get(name);
    const concerned = resource !== undefined && (this.#hasAny(resource.aliases) || this.#hasAny(resource.partOf) || this.#hasOneInRange(resource));
    if (concerned) this.#names.add(name);
    return concerned;
  }

  #hasAny(names: readonly string[]): boolean {
    return names.some((name) => this.#names.has(name));
  }

  #hasOneInRange({ aliases }: ServedResource): boolean {
    const ranges = aliases.flatMap((alias) => parseRangeName(alias) ?? []);
    if (ranges.length === 0) return false;
    for (const name of this.#names) {
      const address = parseAddressName(name);
      if (address !== undefined && ranges.some((range) => rangeHolds(range, address))) return true;
    }
    return false;
  }

  /** A full state is what the client lacks, and the removal of what it kept though it is gone (controller contract 6.4). */
  #expandFull(epoch: number): void {
    this.#fullFrom = undefined;
    for (const { name, version } of this.source.all()) {
      if (this.#retained.get(name) !== version && !this.#upserts.has(name)) this.#upserts.set(name, epoch);
    }
    for (const name of this.#retained.keys()) if (this.source.get(name)?.name !== name) this.#removals.set(name, epoch);
  }
}

/** `<name>: <reason>; <name>: <reason>`, as ambient clients write it (ztunnel contract 3.4); parts that name nothing we sent are left out. */
function rejectedNames(message: string, sent: ReadonlySet<string>): ReadonlyMap<string, string> {
  const rejected = new Map<string, string>();
  for (const part of message.split("; ")) {
    // Names hold colons, so every one in the part may be the end of the name.
    for (let at = part.indexOf(": "); at > 0; at = part.indexOf(": ", at + 1)) {
      if (!sent.has(part.slice(0, at))) continue;
      rejected.set(part.slice(0, at), part.slice(at + 2));
      break;
    }
  }
  return rejected;
}
