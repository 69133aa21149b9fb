/** What the decisions of the waypoint look at: the head of a request, and who sends it where. */
import type { SocketAddress } from "./address.ts";
import type { HeaderFields } from "./header-fields.ts";
import type { SpiffeId } from "./identity.ts";

export interface RequestHead {
  readonly method: string;
  readonly scheme: "http" | "https";
  /** Host and optional port, as the client wrote it. */
  readonly authority: string;
  /** Path and query. Normalised before anything else looks at it: route, policy and upstream see this same string. */
  readonly path: string;
  /** Without pseudo headers and without Host, which is `authority`. */
  readonly headers: HeaderFields;
}

/** JSON as a token carries it. */
export type JsonValue = string | number | boolean | null | readonly JsonValue[] | { readonly [key: string]: JsonValue };

/** The claims of a token that was verified. */
export type Claims = Readonly<Record<string, JsonValue>>;

/** What a request policy is held against (controller contract 4.7). */
export interface RequestFacts {
  readonly head: RequestHead;
  /** The client as its tunnel's certificate proves; undefined when it proved nothing. */
  readonly identity: SpiffeId | undefined;
  /** The address of the client's pod. */
  readonly source: SocketAddress;
  /** The client in front of trusted proxies; `source` when there are none. */
  readonly remote: SocketAddress;
  /** The service's virtual address and port, or the pod's when it was addressed directly. */
  readonly destination: SocketAddress;
  /** TLS server name, where TLS passes through. */
  readonly serverName: string | undefined;
  /** Of the token that was verified, if one was. */
  readonly claims: Claims | undefined;
}
