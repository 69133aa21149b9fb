/** Where a client that chose the mesh by address wants to go, and the address of that: names of the mesh first, then those of the resolver. */
import { type IpAddress, type IpFamily, ipFamily, isPort, type SocketAddress, tryParseIp, tryParseSocketAddress, type Workload } from "@fairway/model";
import { ztunnelError } from "./failure.ts";
import { resolveNextHop } from "./next-hop.ts";
import type { PodScope } from "./pod-scope.ts";

export type AskedDestination =
  | { readonly kind: "address"; readonly address: SocketAddress }
  | { readonly kind: "name"; readonly hostname: string; readonly port: number };

/** RFC 1035 2.3.4. */
const longestHostname = 253;

/** An address or a name as a client writes it; undefined for anything else, and for port 0. */
export function askedFor(host: string, port: number): AskedDestination | undefined {
  if (!isPort(port)) return undefined;
  const ip = tryParseIp(host);
  if (ip !== undefined) return { kind: "address", address: { ip, port } };
  const hostname = host.toLowerCase().replace(/\.$/, "");
  // A name has a letter: digits and dots are an address gone wrong.
  const isName = hostname.length <= longestHostname && /^[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?$/.test(hostname) && /[a-z]/.test(hostname);
  return isName && !hostname.includes("..") ? { kind: "name", hostname, port } : undefined;
}

/** `host:port`, an IPv6 address in brackets; undefined when it is anything else. */
export function parseAskedFor(authority: string): AskedDestination | undefined {
  const address = tryParseSocketAddress(authority);
  if (address !== undefined) return { kind: "address", address };
  const match = /^([^:[\]]+):(\d{1,5})$/.exec(authority);
  return match === null ? undefined : askedFor(match[1] ?? "", Number(match[2]));
}

/** Throws ZTUNNEL_NAME_UNRESOLVED, what asking the mesh throws, or the signal's reason. */
export async function addressAskedFor(
  scope: PodScope,
  asked: AskedDestination,
  client: { readonly workload: Workload; readonly family: IpFamily; readonly signal: AbortSignal },
): Promise<SocketAddress> {
  if (asked.kind === "address") return asked.address;
  const { hostname, port } = asked;
  const { lookup, random, clock } = scope;
  // The family of the client first: what it cannot speak itself is of use to it only through us.
  const families: readonly IpFamily[] = client.family === "ipv4" ? ["ipv4", "ipv6"] : ["ipv6", "ipv4"];
  let owned = false;
  for (const family of families) {
    const addresses = await ofTheMesh(scope, { ...client, hostname, family });
    owned ||= addresses !== undefined;
    const ip = addresses?.[Math.floor(random() * addresses.length)];
    if (ip !== undefined) return { ip, port };
  }
  if (owned) throw ztunnelError("ZTUNNEL_NAME_UNRESOLVED", `${hostname} is a name of the mesh without an address`);
  const near = (client.family === "ipv4" ? "0.0.0.0" : "::") as IpAddress;
  return resolveNextHop({ kind: "hostname", hostname, port }, { lookup, near, random, clock, signal: client.signal });
}

/** Undefined for a name that is none of the mesh. Without the DNS proxy's rules a name counts as it is written. */
async function ofTheMesh(
  { names, mesh, config }: PodScope,
  asked: { readonly hostname: string; readonly family: IpFamily; readonly workload: Workload; readonly signal: AbortSignal },
): Promise<readonly IpAddress[] | undefined> {
  const { hostname, family, workload, signal } = asked;
  const { namespace: clientNamespace } = workload;
  const { network } = config;
  if (config.dns !== undefined) {
    const answer = await names.resolve({ question: { name: hostname, family }, clientNamespace, network }, { signal });
    return answer.kind === "foreign" ? undefined : answer.kind === "addresses" ? answer.addresses : [];
  }
  const service = await mesh.decide((snapshot) => snapshot.serviceByHostname(hostname, clientNamespace), { signal });
  // A service without addresses is not ours to resolve: its endpoints are what a resolver knows.
  if (service === undefined || service.vips.length === 0) return undefined;
  return service.vips.flatMap(({ network: at, ip }) => (at === network && ipFamily(ip) === family ? [ip] : []));
}
