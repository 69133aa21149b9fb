/** The socket options of a mesh socket (ztunnel contract 7.5), by name. */
import { isIPv6 } from "node:net";
import { AF_INET6, getOption, setOption } from "./system-calls.ts";

export interface Keepalive {
  readonly timeMs: number;
  readonly intervalMs: number;
  readonly retries: number;
  /** Longest time that sent bytes may stay unacknowledged; undefined leaves it to the kernel. */
  readonly userTimeoutMs?: number | undefined;
}

const SOL_IP = 0;
const SOL_SOCKET = 1;
const SOL_TCP = 6;
const SOL_IPV6 = 41;
const SO_REUSEADDR = 2;
const SO_KEEPALIVE = 9;
const SO_REUSEPORT = 15;
const SO_MARK = 36;
const IP_FREEBIND = 15;
const IP_TRANSPARENT = 19;
const IP_BIND_ADDRESS_NO_PORT = 24;
const IPV6_V6ONLY = 26;
const IPV6_TRANSPARENT = 75;
const IPV6_FREEBIND = 78;
const TCP_NODELAY = 1;
const TCP_KEEPIDLE = 4;
const TCP_KEEPINTVL = 5;
const TCP_KEEPCNT = 6;
const TCP_USER_TIMEOUT = 18;
/** The same number for IPv4 (SO_ORIGINAL_DST) and IPv6 (IP6T_SO_ORIGINAL_DST). */
const SO_ORIGINAL_DST = 80;

export function setMark(fd: number, mark: number): void {
  if (mark !== 0) setOption(fd, SOL_SOCKET, SO_MARK, mark);
}

export function getMark(fd: number): number {
  const bytes = Buffer.alloc(4);
  getOption(fd, SOL_SOCKET, SO_MARK, bytes);
  return bytes.readUInt32LE();
}

/** libuv sets this for sockets it makes itself; without it a restart meets its own TIME_WAIT. */
export function setReuseAddress(fd: number): void {
  setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
}

export function setReusePort(fd: number): void {
  setOption(fd, SOL_SOCKET, SO_REUSEPORT, 1);
}

export function setDualStack(fd: number): void {
  setOption(fd, SOL_IPV6, IPV6_V6ONLY, 0);
}

export function setTransparent(fd: number, family: number): void {
  if (family === AF_INET6) setOption(fd, SOL_IPV6, IPV6_TRANSPARENT, 1);
  else setOption(fd, SOL_IP, IP_TRANSPARENT, 1);
}

export function setFreebind(fd: number, family: number): void {
  if (family === AF_INET6) setOption(fd, SOL_IPV6, IPV6_FREEBIND, 1);
  else setOption(fd, SOL_IP, IP_FREEBIND, 1);
}

/** A bind to port 0 then takes no port: it is chosen at connect, so one client address is not limited to one range of ports. */
export function setBindWithoutPort(fd: number): void {
  setOption(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1);
}

export function setNoDelay(fd: number): void {
  setOption(fd, SOL_TCP, TCP_NODELAY, 1);
}

/** Accepted sockets inherit it from their listener. */
export function setKeepalive(fd: number, { timeMs, intervalMs, retries, userTimeoutMs }: Keepalive): void {
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  setOption(fd, SOL_TCP, TCP_KEEPIDLE, wholeSeconds(timeMs));
  setOption(fd, SOL_TCP, TCP_KEEPINTVL, wholeSeconds(intervalMs));
  setOption(fd, SOL_TCP, TCP_KEEPCNT, retries);
  if (userTimeoutMs !== undefined) setOption(fd, SOL_TCP, TCP_USER_TIMEOUT, userTimeoutMs);
}

export function getUserTimeout(fd: number): number {
  const bytes = Buffer.alloc(4);
  getOption(fd, SOL_TCP, TCP_USER_TIMEOUT, bytes);
  return bytes.readUInt32LE();
}

/** Fills `into` with the sockaddr that conntrack remembers; the socket of an IPv4 client answers at the IPv4 level, whatever its family. */
export function readOriginalDestination(fd: number, clientIp: string | undefined, into: Buffer): void {
  const mapped = clientIp?.toLowerCase().startsWith("::ffff:") === true;
  const level = clientIp !== undefined && isIPv6(clientIp) && !mapped ? SOL_IPV6 : SOL_IP;
  getOption(fd, level, SO_ORIGINAL_DST, into);
}

function wholeSeconds(ms: number): number {
  return Math.max(1, Math.round(ms / 1_000));
}
