/** From a next hop to an address: workloads known by name are resolved by this process, in its own namespace (ztunnel contract 5.2). */
import { lookup } from "node:dns/promises";
import { type IpAddress, ipFamily, type NextHop, type SocketAddress, tryParseIp } from "@fairway/model";
import { type Clock, withDeadline } from "@fairway/runtime";
import { ztunnelError } from "./failure.ts";

/** Longest wait for a name. */
export const resolveTimeoutMs = 5_000;

/** All addresses of a name. */
export type NameLookup = (hostname: string, options: { signal: AbortSignal }) => Promise<readonly string[]>;

/** The system's resolver. A lookup cannot be taken back once it runs; the caller stops waiting for it. */
export const systemLookup: NameLookup = async (hostname, { signal }) => {
  signal.throwIfAborted();
  const found = await lookup(hostname, { all: true });
  return found.map(({ address }) => address);
};

/** Picks at random among the records of the family wanted, else among the others. Throws ZTUNNEL_NAME_UNRESOLVED. */
export async function resolveNextHop(
  hop: NextHop,
  options: { lookup: NameLookup; near: IpAddress; random: () => number; clock: Clock; signal: AbortSignal },
): Promise<SocketAddress> {
  if (hop.kind === "address") return hop.address;
  let found: readonly string[];
  try {
    const reason = ztunnelError("ZTUNNEL_NAME_UNRESOLVED", `${hop.hostname} was not resolved within ${resolveTimeoutMs} ms`);
    const limit = { clock: options.clock, signal: options.signal, afterMs: resolveTimeoutMs, reason };
    found = await withDeadline(limit, (signal) => options.lookup(hop.hostname, { signal }));
  } catch (cause) {
    if (options.signal.aborted) throw options.signal.reason;
    throw ztunnelError("ZTUNNEL_NAME_UNRESOLVED", `no ip addresses were resolved for ${hop.hostname}`, cause);
  }
  const addresses = found.flatMap((text) => tryParseIp(text) ?? []);
  const sameFamily = addresses.filter((ip) => ipFamily(ip) === ipFamily(options.near));
  const candidates = sameFamily.length > 0 ? sameFamily : addresses;
  const ip = candidates[Math.floor(options.random() * candidates.length)];
  if (ip === undefined) throw ztunnelError("ZTUNNEL_NAME_UNRESOLVED", `${hop.hostname} has no A or AAAA records`);
  return { ip, port: hop.port };
}
