/**
 * The state-of-the-world protocol in words of the delta protocol (waypoint contract 4.2), so that both obey the same order, limits and
 * authorization. Listeners and clusters are always sent as the full set, whose gaps are removals; routes and endpoints by name only.
 */
import { createHash } from "node:crypto";
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource } from "@fairway/protocol";
import { endpointTypeUrl, routeTypeUrl } from "@fairway/protocol";
import { emptyRequest } from "./subscription.ts";

/** How one stream's protocol says what its session says. */
export interface Dialect<Request, Response> {
  /** `stale`: a newer response was sent meanwhile, and what the client says to that one counts. */
  read(request: Request): DeltaDiscoveryRequest | "stale";
  /** Undefined for a response that the protocol has no words for. */
  write(response: DeltaDiscoveryResponse): Response | undefined;
}

export const deltaDialect: Dialect<DeltaDiscoveryRequest, DeltaDiscoveryResponse> = { read: (request) => request, write: (response) => response };

/** One type of one stream. */
interface Type {
  names: ReadonlySet<string>;
  wildcard: boolean;
  /** Once anything was named, naming nothing means nothing. */
  named: boolean;
  /** What the client was sent and still asks for. */
  readonly held: Map<string, Resource>;
  /** Of the last response; "" before the first. */
  nonce: string;
}

/** Types whose absence in a response means nothing: they go with what refers to them. */
const sentByName: ReadonlySet<string> = new Set([routeTypeUrl, endpointTypeUrl]);
const everything = "*";
const versionLength = 16;

export class SotwDialect implements Dialect<DiscoveryRequest, DiscoveryResponse> {
  readonly #served: ReadonlySet<string>;
  readonly #types = new Map<string, Type>();

  /** `served`: type URLs that are answered; of others nothing is kept. */
  constructor(served: Iterable<string>) {
    this.#served = new Set(served);
  }

  read({ typeUrl, node, resourceNames, responseNonce, errorDetail }: DiscoveryRequest): DeltaDiscoveryRequest | "stale" {
    const request = { ...emptyRequest(typeUrl), node };
    if (!this.#served.has(typeUrl)) return request;
    const known = this.#types.get(typeUrl);
    if (known !== undefined && responseNonce !== "" && responseNonce !== known.nonce) return "stale";
    const type: Type = known ?? { names: new Set(), wildcard: false, named: false, held: new Map(), nonce: "" };
    this.#types.set(typeUrl, type);
    const names = new Set(resourceNames);
    const star = names.delete(everything);
    const wildcard = star || (names.size === 0 && !type.named);
    const added = [...names].filter((name) => !type.names.has(name));
    const dropped = [...type.names].filter((name) => !names.has(name));
    const subscribe = wildcard && !type.wildcard ? [everything, ...added] : added;
    const unsubscribe = !wildcard && type.wildcard ? [everything, ...dropped] : dropped;
    type.named ||= star || names.size > 0;
    type.names = names;
    type.wildcard = wildcard;
    if (!wildcard) for (const name of [...type.held.keys()]) if (!names.has(name)) type.held.delete(name);
    return {
      ...request,
      resourceNamesSubscribe: subscribe,
      resourceNamesUnsubscribe: unsubscribe,
      // A nonce of an earlier stream answers nothing on this one.
      responseNonce: known === undefined ? "" : responseNonce,
      errorDetail,
    };
  }

  write({ typeUrl, nonce, resources, removedResources, controlPlane }: DeltaDiscoveryResponse): DiscoveryResponse | undefined {
    const type = this.#types.get(typeUrl);
    if (type === undefined) return undefined;
    let lost = false;
    for (const name of removedResources) lost = type.held.delete(name) || lost;
    for (const resource of resources) type.held.set(resource.name, resource);
    const full = !sentByName.has(typeUrl);
    // The first full set is sent even when it is empty: the client waits for it.
    const says = resources.length > 0 || (full && (lost || type.nonce === ""));
    if (!says) return undefined;
    type.nonce = nonce;
    const sent = full ? [...type.held.values()] : resources;
    return {
      versionInfo: versionOf(type.held.values()),
      resources: sent.flatMap(({ resource }) => resource ?? []),
      canary: false,
      typeUrl,
      nonce,
      controlPlane,
    };
  }
}

/** Equal sets have equal versions, on every stream of every replica. */
function versionOf(resources: Iterable<Resource>): string {
  const hash = createHash("sha256");
  for (const line of [...resources].map(({ name, version }) => `${name}\n${version}\n`).sort()) hash.update(line);
  return hash.digest("hex").slice(0, versionLength);
}
