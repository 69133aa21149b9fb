/** The seam through which a proxy knows the mesh. Filled by delta ADS, or by a local file. */
import type { Snapshot, Workload } from "@fairway/model";
import type { Watch } from "@fairway/runtime";

/** What changed with a snapshot, for those who must react to it (re-authorization, certificate prefetch). */
export interface MeshChange {
  readonly snapshot: Snapshot;
  readonly policiesChanged: boolean;
  readonly workloadsChanged: boolean;
}

export interface DecideOptions {
  readonly signal: AbortSignal;
  /**
   * The decision only says who somebody is, for logs and metrics: the control plane is asked for what is not known, and nobody waits for its
   * answer.
   */
  readonly labels?: boolean;
}

/** Names that a view lets go of. */
export interface MeshRelease {
  readonly names: ReadonlySet<string>;
  /** The names of what `look` looks up, whatever a snapshot holds. */
  namesOf(look: (snapshot: Snapshot) => void): ReadonlySet<string>;
}

export interface MeshView extends AsyncDisposable {
  /** The latest state. Kept while the control plane is away. */
  readonly changes: Watch<MeshChange>;
  readonly snapshot: Snapshot;
  /**
   * Runs a pure decision on the latest state. Where only a part of the mesh is held here, what the decision looked at and was not held is
   * fetched and the decision runs again, so it may run more than once; the result is that of a run that knew everything it looked at.
   * It is computed in the turn in which the promise resolves. Throws what kept the facts away, or the signal's reason.
   */
  decide<T>(decision: (snapshot: Snapshot) => T, options: DecideOptions): Promise<T>;
  /**
   * Of a view that lets go of names nobody asked for in a while: called before what came under them leaves the snapshot, for those who
   * remember answers. From then on its absence says nothing.
   */
  onRelease?(listener: (release: MeshRelease) => void): Disposable;
  /** True once every subscribed type had its first accepted answer. */
  readonly synced: Watch<boolean>;
  /**
   * Waits for the local pod's workload to be known.
   * Throws MeshError XDS_WORKLOAD_UNKNOWN after `timeoutMs`, naming what was looked for.
   */
  waitForWorkload(pod: { namespace: string; name: string; serviceAccount: string }, options: { signal: AbortSignal; timeoutMs: number }): Promise<Workload>;
}

/** One resource a server offers: the bytes are encoded once and sent to every client. */
export interface ServedResource {
  readonly name: string;
  /** Content hash of `body`. */
  readonly version: string;
  /** Serialised message, without the Any envelope. */
  readonly body: Uint8Array;
  /** Other names by which a client may ask for it. */
  readonly aliases: readonly string[];
  /** Names of resources that are of no use without this one: an endpoint names its services. */
  readonly partOf: readonly string[];
}

/** A set of resources of one type with their changes; the controller fills one per type. */
export interface ResourceSource {
  readonly typeUrl: string;
  get(name: string): ServedResource | undefined;
  /** Everything that a client who asks for `name` has to be told: what has this name or alias, whose range holds it, and what belongs to these. */
  matching(name: string): Iterable<ServedResource>;
  all(): Iterable<ServedResource>;
  /** Names that changed (set, replaced or removed) since the last call of the listener. Dispose to stop. */
  subscribe(listener: (names: ReadonlySet<string>) => void): Disposable;
}

/** What a client may see. */
export type XdsScope =
  /** A node's proxy: the whole mesh. */
  | { readonly kind: "node" }
  /** A waypoint, by `<namespace>/<name>` of its Gateway: the addresses of the mesh, and its own configuration. */
  | { readonly kind: "waypoint"; readonly waypoint: string }
  /** A proxyless gRPC client, and the namespace that its short names are of. Each client is a scope of its own: it is served what it names. */
  | { readonly kind: "grpc"; readonly namespace: string };

/** The sources of one scope, in push order: what must be known first comes first. Disposed when the last client of the scope left. */
export interface ServedScope extends Disposable {
  readonly sources: readonly ResourceSource[];
}

/** Who a client is, decided before its stream is accepted. */
export interface XdsPeer {
  readonly identity: { readonly namespace: string; readonly serviceAccount: string };
  readonly node: string | undefined;
  readonly scope: XdsScope;
}
