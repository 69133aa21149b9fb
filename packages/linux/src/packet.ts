/** What an Ethernet frame says: addresses, ports and bytes of IPv4 and IPv6, TCP and UDP. Anything short or strange is undefined, never an error. */
import { type IpEndpoint, ipv4Text, ipv6Text } from "./socket-address.ts";

export interface Packet {
  readonly source: IpEndpoint;
  readonly destination: IpEndpoint;
  readonly protocol: "tcp" | "udp";
  /** What TCP or UDP carries; a view of the frame. */
  readonly payload: Uint8Array;
  /** Undefined for UDP. */
  readonly tcpFlags: TcpFlags | undefined;
}

export interface TcpFlags {
  readonly fin: boolean;
  readonly syn: boolean;
  readonly rst: boolean;
  readonly psh: boolean;
  readonly ack: boolean;
}

const ethernetBytes = 14;
const vlanTags = new Set([0x8100, 0x88a8]);
const vlanDepth = 2;
const IPV4 = 0x0800;
const IPV6 = 0x86dd;
const TCP = 6;
const UDP = 17;
/** Hop-by-hop, routing, destination options: a header, its length in 8-byte units, then the next header. */
const skippableHeaders = new Set([0, 43, 60]);
const fragmentHeader = 44;
const extensionHeaderLimit = 8;

interface Layer4 {
  readonly sourceIp: string;
  readonly destinationIp: string;
  readonly protocol: number;
  readonly bytes: Buffer;
}

/** The TCP or UDP packet in an Ethernet frame; undefined for all else, later fragments included. */
export function parseFrame(frame: Buffer): Packet | undefined {
  if (frame.length < ethernetBytes) return undefined;
  let offset = ethernetBytes;
  let type = frame.readUInt16BE(12);
  for (let depth = 0; vlanTags.has(type) && depth < vlanDepth; depth += 1) {
    if (frame.length < offset + 4) return undefined;
    type = frame.readUInt16BE(offset + 2);
    offset += 4;
  }
  const network = frame.subarray(offset);
  const inner = type === IPV4 ? parseIpv4(network) : type === IPV6 ? parseIpv6(network) : undefined;
  return inner === undefined ? undefined : parseLayer4(inner);
}

/** RFC 791. */
function parseIpv4(bytes: Buffer): Layer4 | undefined {
  if (bytes.length < 20) return undefined;
  const headerBytes = (bytes.readUInt8(0) & 0x0f) * 4;
  // A total length of 0 is how the kernel shows a segment it has not cut yet (TSO): the frame's own length counts.
  const totalBytes = bytes.readUInt16BE(2) || bytes.length;
  const fragmentOffset = bytes.readUInt16BE(6) & 0x1fff;
  if (bytes.readUInt8(0) >> 4 !== 4 || headerBytes < 20 || totalBytes < headerBytes || bytes.length < headerBytes || fragmentOffset !== 0) return undefined;
  return {
    sourceIp: ipv4Text(bytes.subarray(12, 16)),
    destinationIp: ipv4Text(bytes.subarray(16, 20)),
    protocol: bytes.readUInt8(9),
    bytes: bytes.subarray(headerBytes, totalBytes),
  };
}

/** RFC 8200 sections 3 and 4. */
function parseIpv6(bytes: Buffer): Layer4 | undefined {
  if (bytes.length < 40 || bytes.readUInt8(0) >> 4 !== 6) return undefined;
  const payloadBytes = bytes.readUInt16BE(4);
  const end = payloadBytes === 0 ? bytes.length : 40 + payloadBytes;
  let next = bytes.readUInt8(6);
  let offset = 40;
  for (let count = 0; skippableHeaders.has(next) || next === fragmentHeader; count += 1) {
    if (count === extensionHeaderLimit || bytes.length < offset + 8) return undefined;
    if (next === fragmentHeader && bytes.readUInt16BE(offset + 2) >> 3 !== 0) return undefined;
    const length = next === fragmentHeader ? 8 : (bytes.readUInt8(offset + 1) + 1) * 8;
    next = bytes.readUInt8(offset);
    offset += length;
  }
  return {
    sourceIp: ipv6Text(bytes.subarray(8, 24)),
    destinationIp: ipv6Text(bytes.subarray(24, 40)),
    protocol: next,
    bytes: bytes.subarray(offset, Math.max(offset, end)),
  };
}

function parseLayer4({ sourceIp, destinationIp, protocol, bytes }: Layer4): Packet | undefined {
  if (bytes.length < 8 || (protocol !== TCP && protocol !== UDP)) return undefined;
  const source = { ip: sourceIp, port: bytes.readUInt16BE(0) };
  const destination = { ip: destinationIp, port: bytes.readUInt16BE(2) };
  if (protocol === UDP) return { source, destination, protocol: "udp", payload: bytes.subarray(8), tcpFlags: undefined };
  if (bytes.length < 20) return undefined;
  const headerBytes = (bytes.readUInt8(12) >> 4) * 4;
  if (headerBytes < 20 || bytes.length < headerBytes) return undefined;
  return { source, destination, protocol: "tcp", payload: bytes.subarray(headerBytes), tcpFlags: tcpFlags(bytes.readUInt8(13)) };
}

function tcpFlags(bits: number): TcpFlags {
  return { fin: (bits & 0x01) !== 0, syn: (bits & 0x02) !== 0, rst: (bits & 0x04) !== 0, psh: (bits & 0x08) !== 0, ack: (bits & 0x10) !== 0 };
}
