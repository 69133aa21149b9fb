/** The kernel seam: namespaces, sockets with marks, original destination, seqpacket with descriptor passing, nft rules applied. */
export { type Capture, type CaptureCounts, type CapturedPacket, capturePackets } from "./capture.ts";
export { type CommandOptions, type CommandResult, runIn } from "./command.ts";
export { currentNamespace, hasIpv6, inNamespace, type NetworkNamespace, openNamespace, sameNamespace } from "./namespace.ts";
export { applyNft } from "./nft.ts";
export { type OutputPipe, outputPipe } from "./output-pipe.ts";
export { type Packet, parseFrame, type TcpFlags } from "./packet.ts";
export type { DialOptions, Listener, ListenOptions, PodNetwork } from "./pod-network.ts";
export { type HostPodNetworkOptions, hostPodNetwork } from "./pod-network-host.ts";
export { type LinuxPodNetworkOptions, linuxPodNetwork } from "./pod-network-linux.ts";
export { hasRoute } from "./route.ts";
export { selfTest } from "./self-test.ts";
export { connectSeqpacket, SeqpacketServer, type SeqpacketServerOptions } from "./seqpacket.ts";
export { closeDescriptors, SeqpacketConnection, type SeqpacketMessage, type SeqpacketOptions } from "./seqpacket-connection.ts";
export { canonicalIp } from "./socket-address.ts";
export { errnoOf, trimAllocator } from "./system-calls.ts";
export { leavePort, type UdpOptions, udpSocketIn } from "./udp.ts";
