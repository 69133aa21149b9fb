/** struct sockaddr as bytes, and IP addresses in their one canonical text (RFC 5952; IPv4-mapped unwrapped). */
import { isIPv4, isIPv6 } from "node:net";
import { MeshError } from "@fairway/runtime";
import { AF_INET, AF_INET6, AF_UNIX } from "./system-calls.ts";

/** sun_path is 108 bytes, one of them the closing zero. */
const longestPathBytes = 107;

export interface IpEndpoint {
  readonly ip: string;
  readonly port: number;
}

/** AF_INET or AF_INET6. Throws LINUX_BAD_ADDRESS for anything that is not an IP address (a zone index included). */
export function addressFamily(ip: string): number {
  if (isIPv4(ip)) return AF_INET;
  if (isIPv6(ip) && !ip.includes("%")) return AF_INET6;
  throw new MeshError("LINUX_BAD_ADDRESS", `"${ip}" is not an IP address`);
}

/** sockaddr_in or sockaddr_in6. */
export function encodeSocketAddress(ip: string, port: number): Buffer {
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new MeshError("LINUX_BAD_ADDRESS", `${port} is not a port`);
  const family = addressFamily(ip);
  const bytes = Buffer.alloc(family === AF_INET ? 16 : 28);
  bytes.writeUInt16LE(family, 0);
  bytes.writeUInt16BE(port, 2);
  if (family === AF_INET) ipv4Bytes(ip).forEach((byte, index) => void bytes.writeUInt8(byte, 4 + index));
  else ipv6Groups(ip).forEach((group, index) => void bytes.writeUInt16BE(group, 8 + 2 * index));
  return bytes;
}

/** The endpoint in a sockaddr_in or sockaddr_in6; undefined for any other family or a short buffer. */
export function decodeSocketAddress(bytes: Buffer): IpEndpoint | undefined {
  if (bytes.length < 16) return undefined;
  const family = bytes.readUInt16LE(0);
  const port = bytes.readUInt16BE(2);
  if (family === AF_INET) return { ip: ipv4Text(bytes.subarray(4, 8)), port };
  if (family === AF_INET6 && bytes.length >= 24) return { ip: ipv6Text(bytes.subarray(8, 24)), port };
  return undefined;
}

/** sockaddr_un of a file. */
export function encodeUnixAddress(path: string): Buffer {
  const name = Buffer.from(path, "utf8");
  if (name.length === 0 || name.length > longestPathBytes || name.includes(0)) {
    throw new MeshError("LINUX_BAD_ADDRESS", `a socket path has 1 to ${longestPathBytes} bytes, "${path}" has ${name.length}`);
  }
  const bytes = Buffer.alloc(2 + name.length + 1);
  bytes.writeUInt16LE(AF_UNIX, 0);
  name.copy(bytes, 2);
  return bytes;
}

/** The one text of an address: lower case, zeros compressed, IPv4-mapped as IPv4. Throws LINUX_BAD_ADDRESS. */
export function canonicalIp(ip: string): string {
  if (isIPv4(ip)) return ip;
  addressFamily(ip);
  const bytes = Buffer.alloc(16);
  ipv6Groups(ip).forEach((group, index) => void bytes.writeUInt16BE(group, 2 * index));
  return ipv6Text(bytes);
}

export function ipv4Text(bytes: Uint8Array): string {
  return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`;
}

/** RFC 5952 section 4: the longest run of zero groups, the first of equals and of two or more, becomes `::`. */
export function ipv6Text(bytes: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(2 * index));
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff) return ipv4Text(bytes.subarray(12, 16));
  let best = { start: -1, length: 1 };
  for (let start = 0; start < 8; start += 1) {
    let length = 0;
    while (groups[start + length] === 0) length += 1;
    if (length > best.length) best = { start, length };
  }
  const text = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(":");
  if (best.start < 0) return text(groups);
  return `${text(groups.slice(0, best.start))}::${text(groups.slice(best.start + best.length))}`;
}

function ipv4Bytes(ip: string): number[] {
  return ip.split(".").map(Number);
}

/** The eight groups of an address that `isIPv6` accepted. */
function ipv6Groups(ip: string): number[] {
  const [head = "", tail] = ip.split("::", 2);
  const left = groupsOf(head);
  if (tail === undefined) return left;
  const right = groupsOf(tail);
  return [...left, ...new Array<number>(8 - left.length - right.length).fill(0), ...right];
}

function groupsOf(part: string): number[] {
  if (part === "") return [];
  return part.split(":").flatMap((group) => {
    if (!group.includes(".")) return [Number.parseInt(group, 16)];
    const [a = 0, b = 0, c = 0, d = 0] = ipv4Bytes(group);
    return [a * 256 + b, c * 256 + d];
  });
}
