/** What one proxyless gRPC client is served: only what it names, made when it names it, and told again when it changed. */
import { clusterTypeUrl, endpointTypeUrl, listenerTypeUrl, routeTypeUrl } from "@fairway/protocol";
import { contentVersion, type ResourceSource, type ServedResource, type ServedScope } from "@fairway/xds";
import { overlap, type ProxylessAnswer, type ProxylessMesh } from "./proxyless-mesh.ts";
import { readClusterName, readListenerName } from "./proxyless-names.ts";

/** Names of one type that a client may ask for. */
export const maxProxylessNames = 1_000;
/** So many names are followed; a client that lets go of names and takes others is not remembered for ever. */
const maxFollowed = 4 * maxProxylessNames;

/** The bytes under a name, and the Services that they were made of. */
interface Found {
  readonly body: Uint8Array | undefined;
  readonly services: ReadonlySet<string>;
}

const nothing: Found = { body: undefined, services: new Set() };

export function openProxylessScope(mesh: ProxylessMesh, where: { readonly namespace: string; readonly clusterDomain: string }): ServedScope {
  const { clusterDomain } = where;
  /** Clusters that are no service's own: where calls go that must fail. */
  const common = new Map<string, { readonly cluster: Uint8Array; readonly endpoints: Uint8Array | undefined }>();
  const listener = (name: string): ProxylessAnswer | undefined => {
    const port = readListenerName(name, where);
    const answer = port && mesh.answer(name, port);
    for (const { name: cluster, bytes } of answer?.resources?.clusters ?? []) {
      if (readClusterName(cluster, clusterDomain) !== undefined) continue;
      common.set(cluster, { cluster: bytes, endpoints: answer?.resources?.endpoints.find((each) => each.name === cluster)?.bytes });
    }
    return answer;
  };
  const byListener = (pick: "listener" | "routes") => (name: string) => {
    const answer = listener(name);
    return answer === undefined ? nothing : { services: answer.services, body: answer.resources?.[pick].bytes };
  };
  const byCluster = (pick: "clusters" | "endpoints") => (name: string) => {
    const port = readClusterName(name, clusterDomain);
    if (port === undefined) return { ...nothing, body: common.get(name)?.[pick === "clusters" ? "cluster" : "endpoints"] };
    const answer = mesh.backend(port);
    return { services: answer.services, body: answer.resources?.[pick].find((each) => each.name === name)?.bytes };
  };
  const sources = [
    new NamedSource(clusterTypeUrl, byCluster("clusters")),
    new NamedSource(endpointTypeUrl, byCluster("endpoints")),
    new NamedSource(listenerTypeUrl, byListener("listener")),
    new NamedSource(routeTypeUrl, byListener("routes")),
  ];
  const subscription = mesh.subscribe((services) => {
    for (const source of sources) source.refresh(services);
  });
  return { sources, [Symbol.dispose]: () => subscription[Symbol.dispose]() };
}

interface Followed {
  readonly resource: ServedResource | undefined;
  readonly services: ReadonlySet<string>;
}

/** A source that makes what is asked for, and follows it from then on. */
class NamedSource implements ResourceSource {
  readonly typeUrl: string;
  readonly #find: (name: string) => Found;
  readonly #followed = new Map<string, Followed>();
  readonly #listeners = new Set<(names: ReadonlySet<string>) => void>();

  constructor(typeUrl: string, find: (name: string) => Found) {
    this.typeUrl = typeUrl;
    this.#find = find;
  }

  get(name: string): ServedResource | undefined {
    const known = this.#followed.get(name) ?? this.#follow(name);
    return known.resource;
  }

  matching(name: string): Iterable<ServedResource> {
    const resource = this.get(name);
    return resource === undefined ? [] : [resource];
  }

  /** Whoever asks for everything is given nothing: a client is told of what it names. */
  all(): Iterable<ServedResource> {
    return [];
  }

  subscribe(listener: (names: ReadonlySet<string>) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /** Makes again what was made of these Services, and tells which of it is another now. */
  refresh(services: ReadonlySet<string>): void {
    const changed = new Set<string>();
    for (const [name, before] of [...this.#followed]) {
      if (!overlap(services, before.services)) continue;
      const { resource } = this.#follow(name);
      if (resource?.version !== before.resource?.version) changed.add(name);
    }
    if (changed.size > 0) for (const listener of [...this.#listeners]) listener(changed);
  }

  #follow(name: string): Followed {
    const { body, services } = this.#find(name);
    const resource = body === undefined ? undefined : { name, version: contentVersion(body), body, aliases: [], partOf: [] };
    const followed = { resource, services };
    if (!this.#followed.has(name) && this.#followed.size >= maxFollowed) {
      const [oldest] = this.#followed.keys();
      if (oldest !== undefined) this.#followed.delete(oldest);
    }
    this.#followed.set(name, followed);
    return followed;
  }
}
