/** The kernel seam: namespaces, sockets with marks, original destination, seqpacket with descriptor passing, nft rules applied. */
export { currentNamespace, hasIpv6, inNamespace, type NetworkNamespace, openNamespace, sameNamespace } from "./namespace.ts";
export type { DialOptions, Listener, ListenOptions, PodNetwork } from "./pod-network.ts";
export { type HostPodNetworkOptions, hostPodNetwork } from "./pod-network-host.ts";
export { type LinuxPodNetworkOptions, linuxPodNetwork } from "./pod-network-linux.ts";
export { selfTest } from "./self-test.ts";
export { canonicalIp } from "./socket-address.ts";
export { errnoOf } from "./system-calls.ts";
