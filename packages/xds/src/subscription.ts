/**
 * The client's side of one type: what is held by version, and what a response does to it. No I/O.
 * Subscribes to everything; a subscription by name (on demand) is the other way to write `firstRequest`.
 */
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node } from "@fairway/protocol";
import { messageOf } from "@fairway/runtime";

export interface ReceivedResource {
  readonly name: string;
  /** Serialised message, without the Any envelope. */
  readonly body: Uint8Array;
}

/** Where the resources of one type go. */
export interface ResourceSink {
  readonly typeUrl: string;
  /** The first answer counts even when parts of it are refused: where one bad resource must not keep the others from being served. */
  readonly syncsWithRejections?: boolean;
  /** Applies one response as a whole and returns the resources it could not accept, by name with the reason. The others are applied. */
  apply(resources: readonly ReceivedResource[], removed: readonly string[]): ReadonlyMap<string, string>;
}

export interface AppliedResponse {
  readonly reply: DeltaDiscoveryRequest;
  readonly rejected: ReadonlyMap<string, string>;
}

/** An answer longer than this is cut: a control plane that sends only nonsense must not be sent a book back. */
const maxErrorLength = 16_384;

export class Subscription {
  readonly sink: ResourceSink;
  readonly #versions = new Map<string, string>();
  #synced = false;

  constructor(sink: ResourceSink) {
    this.sink = sink;
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
    return { ...emptyRequest(this.sink.typeUrl), node, initialResourceVersions: new Map(this.#versions) };
  }

  /** Applies a response. Never throws: whatever cannot be used is named in the reply (NACK). */
  receive(response: DeltaDiscoveryResponse): AppliedResponse {
    const { typeUrl } = this.sink;
    const rejected = new Map<string, string>();
    const received = new Map<string, { readonly version: string; readonly body: Uint8Array }>();
    for (const { name, version, resource } of response.resources) {
      if (resource === undefined) rejected.set(name, "the resource is missing");
      else if (resource.typeUrl !== typeUrl) rejected.set(name, `the resource is of type ${JSON.stringify(resource.typeUrl.slice(0, 200))}`);
      else received.set(name, { version, body: resource.value });
    }
    try {
      const resources = [...received].map(([name, { body }]) => ({ name, body }));
      for (const [name, reason] of this.sink.apply(resources, response.removedResources)) rejected.set(name, reason);
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

/** An ACK for a type nobody subscribed to (ztunnel contract 3.4). */
export function acknowledgement({ typeUrl, nonce }: DeltaDiscoveryResponse): DeltaDiscoveryRequest {
  return { ...emptyRequest(typeUrl), responseNonce: nonce };
}

function emptyRequest(typeUrl: string): DeltaDiscoveryRequest {
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
