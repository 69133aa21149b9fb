/**
 * The client's side of one type: what is held by version, and what a response does to it. No I/O.
 * Subscribes to everything, or on demand to nothing but the names that are asked for.
 */
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node } from "@fairway/protocol";
import { messageOf } from "@fairway/runtime";

export interface ReceivedResource {
  readonly name: string;
  /** Serialised message, without the Any envelope. */
  readonly body: Uint8Array;
  /** Other names by which it may have been asked for. */
  readonly aliases?: readonly string[];
}

/** Where the resources of one type go. */
export interface ResourceSink {
  readonly typeUrl: string;
  /** The first answer counts even when parts of it are refused: where one bad resource must not keep the others from being served. */
  readonly syncsWithRejections?: boolean;
  /**
   * Applies one response as a whole and returns the resources it could not accept, by name with the reason. The others are applied.
   * `unreadable` are names that came with nothing that could be handed on.
   */
  apply(resources: readonly ReceivedResource[], removed: readonly string[], unreadable: readonly string[]): ReadonlyMap<string, string>;
}

/** The names of a type that is subscribed on demand. */
export interface WantedNames {
  /** Every name that is wanted now, answered or not. */
  names(): Iterable<string>;
}

export interface AppliedResponse {
  readonly reply: DeltaDiscoveryRequest;
  readonly rejected: ReadonlyMap<string, string>;
}

/** An answer longer than this is cut: a control plane that sends only nonsense must not be sent a book back. */
const maxErrorLength = 16_384;

export class Subscription {
  readonly sink: ResourceSink;
  readonly #wanted: WantedNames | undefined;
  readonly #versions = new Map<string, string>();
  #synced: boolean;

  /** `wanted`: subscribe to these names only. Such a type is never waited for (ztunnel contract 3.5). */
  constructor(sink: ResourceSink, wanted?: WantedNames) {
    this.sink = sink;
    this.#wanted = wanted;
    this.#synced = wanted !== undefined;
  }

  /** True after the first response that was accepted, whole unless the sink says otherwise. */
  get synced(): boolean {
    return this.#synced;
  }

  get held(): number {
    return this.#versions.size;
  }

  /** The first request of this type on a new stream: who we are, and what we still hold (ztunnel contract 3.4). */
  firstRequest(node: Node): DeltaDiscoveryRequest {
    const held = { ...emptyRequest(this.sink.typeUrl), node, initialResourceVersions: new Map(this.#versions) };
    if (this.#wanted === undefined) return held;
    // What was asked for and never came has no version; naming it here is what subscribes to it again.
    for (const name of this.#wanted.names()) if (!held.initialResourceVersions.has(name)) held.initialResourceVersions.set(name, "");
    // Everything and at once nothing: how the protocol says "only what I will name" (ztunnel contract 3.3).
    return { ...held, resourceNamesSubscribe: ["*"], resourceNamesUnsubscribe: ["*"] };
  }

  /** A change of the names on an open stream; what is no longer wanted is no longer held. */
  nextRequest(change: { readonly subscribe?: readonly string[]; readonly unsubscribe?: readonly string[] }): DeltaDiscoveryRequest {
    const { subscribe = [], unsubscribe = [] } = change;
    return { ...emptyRequest(this.sink.typeUrl), resourceNamesSubscribe: [...subscribe], resourceNamesUnsubscribe: [...unsubscribe] };
  }

  /** Forgets what is held under these names. */
  release(names: Iterable<string>): void {
    for (const name of names) this.#versions.delete(name);
  }

  /** Applies a response. Never throws: whatever cannot be used is named in the reply (NACK). */
  receive(response: DeltaDiscoveryResponse): AppliedResponse {
    const { typeUrl } = this.sink;
    const rejected = new Map<string, string>();
    const received = new Map<string, ReceivedResource & { readonly version: string }>();
    for (const { name, version, resource, aliases } of response.resources) {
      if (resource === undefined) rejected.set(name, "the resource is missing");
      else if (resource.typeUrl !== typeUrl) rejected.set(name, `the resource is of type ${JSON.stringify(resource.typeUrl.slice(0, 200))}`);
      else received.set(name, { name, version, body: resource.value, aliases });
    }
    try {
      const refused = this.sink.apply([...received.values()], response.removedResources, [...rejected.keys()]);
      for (const [name, reason] of refused) rejected.set(name, reason);
    } catch (thrown) {
      for (const name of received.keys()) rejected.set(name, messageOf(thrown));
    }
    // Removals come first: a resource removed and sent again in one response is held.
    for (const name of response.removedResources) this.#versions.delete(name);
    for (const [name, { version }] of received) if (!rejected.has(name)) this.#versions.set(name, version);
    if (rejected.size === 0 || this.sink.syncsWithRejections === true) this.#synced = true;
    return { rejected, reply: { ...emptyRequest(typeUrl), responseNonce: response.nonce, errorDetail: errorDetail(rejected) } };
  }
}

/** An ACK, also for a type nobody subscribed to (ztunnel contract 3.4). */
export function acknowledgement({ typeUrl, nonce }: Pick<DeltaDiscoveryResponse, "typeUrl" | "nonce">): DeltaDiscoveryRequest {
  return { ...emptyRequest(typeUrl), responseNonce: nonce };
}

/** A request that says nothing but its type. */
export function emptyRequest(typeUrl: string): DeltaDiscoveryRequest {
  return {
    node: undefined,
    typeUrl,
    resourceNamesSubscribe: [],
    resourceNamesUnsubscribe: [],
    initialResourceVersions: new Map(),
    responseNonce: "",
    errorDetail: undefined,
  };
}

function errorDetail(rejected: ReadonlyMap<string, string>): DeltaDiscoveryRequest["errorDetail"] {
  if (rejected.size === 0) return undefined;
  const message = [...rejected].map(([name, reason]) => `${name}: ${reason}`).join("; ");
  return { code: 0, message: message.slice(0, maxErrorLength), details: [] };
}
