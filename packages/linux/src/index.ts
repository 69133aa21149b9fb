/** The kernel seam: namespaces, sockets with marks, original destination, seqpacket with descriptor passing, nft rules applied. */
export type { NetworkNamespace } from "./namespace.ts";
export type { DialOptions, Listener, ListenOptions, PodNetwork } from "./pod-network.ts";
