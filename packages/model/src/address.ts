/** IP addresses, sockets and CIDR ranges, in one canonical form each. */
import ipaddr from "ipaddr.js";
import { InvalidValueError } from "./invalid-value.ts";

/** Canonical text: dotted quad, or RFC 5952 for IPv6; an IPv4-mapped address is its IPv4 form. No zone. */
export type IpAddress = string & { readonly __brand: "IpAddress" };
export type IpFamily = "ipv4" | "ipv6";
/** Name of an L3 network; "" is the common one. */
export type NetworkId = string & { readonly __brand: "NetworkId" };

export interface SocketAddress {
  readonly ip: IpAddress;
  readonly port: number;
}

export interface NetworkAddress {
  readonly network: NetworkId;
  readonly ip: IpAddress;
}

export interface Cidr {
  readonly ip: IpAddress;
  /** Prefix length, 0..32 or 0..128. */
  readonly length: number;
}

const octet = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
/** Canonical as it is written: no leading zeros, no other bases. */
const dottedQuad = new RegExp(`^${octet}(?:\\.${octet}){3}$`);
/** As a socket of both families names an IPv4 peer. */
const mappedPrefix = "::ffff:";

export const defaultNetwork = "" as NetworkId;

export function networkId(name: string): NetworkId {
  return name as NetworkId;
}

/** Throws InvalidValueError for anything but a plain IP address; scoped IPv6 (`fe80::1%eth0`) is refused. */
export function parseIp(text: string): IpAddress {
  const ip = tryParseIp(text);
  if (ip === undefined) throw new InvalidValueError(`${JSON.stringify(text)} is not an IP address`);
  return ip;
}

/** Called for both ends of every connection: the two forms in which sockets name IPv4 go without the library, which answers "no" by an exception. */
export function tryParseIp(text: string): IpAddress | undefined {
  if (dottedQuad.test(text)) return text as IpAddress;
  if (text.startsWith(mappedPrefix) && dottedQuad.test(text.slice(mappedPrefix.length))) return text.slice(mappedPrefix.length) as IpAddress;
  if (!text.includes(":") || text.includes("%") || !ipaddr.IPv6.isValid(text)) return undefined;
  return canonical(ipaddr.IPv6.parse(text));
}

/** From 4 or 16 bytes in network order. Throws InvalidValueError for any other length. */
export function ipFromBytes(bytes: Uint8Array): IpAddress {
  if (bytes.length !== 4 && bytes.length !== 16) throw new InvalidValueError(`an IP address has 4 or 16 bytes, not ${bytes.length}`);
  return canonical(ipaddr.fromByteArray([...bytes]));
}

export function ipToBytes(ip: IpAddress): Uint8Array {
  return Uint8Array.from(ipaddr.parse(ip).toByteArray());
}

export function ipFamily(ip: IpAddress): IpFamily {
  return ip.includes(":") ? "ipv6" : "ipv4";
}

export function isLoopback(ip: IpAddress): boolean {
  return ip === "::1" || ip.startsWith("127.");
}

/** `10.0.0.1:80`, `[fd00::1]:80`. */
export function formatSocketAddress({ ip, port }: SocketAddress): string {
  return ipFamily(ip) === "ipv6" ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/** The reverse of `formatSocketAddress`; undefined when the text is anything else. Port 0 is refused. */
export function tryParseSocketAddress(text: string): SocketAddress | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  const ip = tryParseIp(match?.[1] ?? match?.[2] ?? "");
  const port = Number(match?.[3]);
  if (ip === undefined || (match?.[1] !== undefined) !== (ipFamily(ip) === "ipv6")) return undefined;
  return isPort(port) ? { ip, port } : undefined;
}

export function isPort(port: number): boolean {
  return Number.isInteger(port) && port > 0 && port <= 65_535;
}

/** `10.0.0.0/8`, or a bare address, which is a range of one. Throws InvalidValueError. */
export function parseCidr(text: string): Cidr {
  const [address = "", length, ...rest] = text.split("/");
  const ip = tryParseIp(address);
  const longest = ip !== undefined && ipFamily(ip) === "ipv4" ? 32 : 128;
  const bits = length === undefined ? longest : /^\d{1,3}$/.test(length) ? Number(length) : -1;
  if (ip === undefined || rest.length > 0 || bits < 0 || bits > longest) {
    throw new InvalidValueError(`${JSON.stringify(text)} is not an IP address or CIDR range`);
  }
  return { ip, length: bits };
}

export function cidrContains(range: Cidr, ip: IpAddress): boolean {
  if (ipFamily(range.ip) !== ipFamily(ip)) return false;
  const network = ipToBytes(range.ip);
  const address = ipToBytes(ip);
  const whole = range.length >> 3;
  for (let index = 0; index < whole; index++) if (network[index] !== address[index]) return false;
  const rest = range.length & 7;
  if (rest === 0) return true;
  const mask = (0xff << (8 - rest)) & 0xff;
  return ((network[whole] ?? 0) & mask) === ((address[whole] ?? 0) & mask);
}

function canonical(address: ipaddr.IPv4 | ipaddr.IPv6): IpAddress {
  if (address instanceof ipaddr.IPv6 && address.isIPv4MappedAddress()) return address.toIPv4Address().toString() as IpAddress;
  return (address instanceof ipaddr.IPv6 ? address.toRFC5952String() : address.toString()) as IpAddress;
}
