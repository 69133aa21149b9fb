/** PROXY protocol version 2 for application tunnels (ztunnel contract 1.11): the client, the target, and who the client proved to be. */
import { ipFamily, ipToBytes, type SocketAddress, type SpiffeId } from "@fairway/model";

const signature = Buffer.from("0d0a0d0a000d0a515549540a", "hex");
const versionAndProxy = 0x21;
const tcpOverIpv4 = 0x11;
const tcpOverIpv6 = 0x21;
/** The TLV that carries a peer's SPIFFE identity. */
const identityType = 0xd0;
const mappedPrefix = Buffer.from("00000000000000000000ffff", "hex");

/** A destination of another family than the source makes both IPv6, the IPv4 one mapped: the format has one family for both. */
export function proxyHeader({ source, destination, identity }: { source: SocketAddress; destination: SocketAddress; identity: SpiffeId }): Buffer {
  const bothIpv4 = ipFamily(source.ip) === "ipv4" && ipFamily(destination.ip) === "ipv4";
  const addresses = [source, destination].map(({ ip }) => (bothIpv4 ? Buffer.from(ipToBytes(ip)) : asIpv6(Buffer.from(ipToBytes(ip)))));
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(source.port, 0);
  ports.writeUInt16BE(destination.port, 2);
  const value = Buffer.from(identity, "utf8");
  const tlv = Buffer.alloc(3);
  tlv.writeUInt8(identityType, 0);
  tlv.writeUInt16BE(value.length, 1);
  const body = Buffer.concat([...addresses, ports, tlv, value]);
  const head = Buffer.alloc(4);
  head.writeUInt8(versionAndProxy, 0);
  head.writeUInt8(bothIpv4 ? tcpOverIpv4 : tcpOverIpv6, 1);
  head.writeUInt16BE(body.length, 2);
  return Buffer.concat([signature, head, body]);
}

function asIpv6(bytes: Buffer): Buffer {
  return bytes.length === 16 ? bytes : Buffer.concat([mappedPrefix, bytes]);
}
