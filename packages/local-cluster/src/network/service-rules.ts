/**
 * Service addresses as nft rules: one table per node, replaced as a whole in one transaction.
 * Ready endpoints share new connections evenly; a port without any is refused at once; a pod may call itself through its own service.
 * Session affinity is not honoured. Pure.
 */
import type { EndpointSlice, Service, ServicePort } from "../resources.ts";
import { type Family, familyOf, serviceRanges } from "./address-plan.ts";

/** One address and port that stands for many. */
export interface VirtualPort {
  readonly ip: string;
  readonly protocol: "tcp" | "udp";
  readonly port: number;
  readonly nodePort: number | undefined;
  readonly endpoints: readonly { readonly ip: string; readonly port: number }[];
}

const serviceTable = "fairway_services";

/** What the services and their slices ask of every node. Order is stable, so that equal input gives equal rules. */
export function virtualPorts(services: Iterable<Service>, slices: Iterable<EndpointSlice>): VirtualPort[] {
  const slicesByService = new Map<string, EndpointSlice[]>();
  for (const slice of slices) {
    const key = `${slice.metadata.namespace}/${slice.metadata.labels?.["kubernetes.io/service-name"] ?? ""}`;
    slicesByService.set(key, [...(slicesByService.get(key) ?? []), slice]);
  }
  const all: VirtualPort[] = [];
  for (const service of services) {
    const own = slicesByService.get(`${service.metadata.namespace}/${service.metadata.name}`) ?? [];
    for (const ip of clusterIps(service)) {
      for (const port of service.spec?.ports ?? []) {
        const protocol = protocolOf(port);
        if (protocol === undefined) continue;
        all.push({ ip, protocol, port: port.port, nodePort: port.nodePort, endpoints: readyEndpoints(own, port, familyOf(ip)) });
      }
    }
  }
  return all.sort((a, b) => nameOf(a).localeCompare(nameOf(b)));
}

/** The whole table as one nft script. `nodeIps` are the addresses whose node ports are served. */
export function serviceRules(ports: readonly VirtualPort[], nodeIps: readonly string[]): string {
  const chains: string[] = [];
  const targets = new Map<string, string>();
  const elements: Record<Family, string[]> = { ipv4: [], ipv6: [] };
  for (const port of ports) {
    const family = familyOf(port.ip);
    let target = "refuse";
    if (port.endpoints.length > 0) {
      const rule = translation(port, family);
      target = targets.get(rule) ?? `to_${targets.size}`;
      if (!targets.has(rule)) chains.push(`  chain ${target} {\n    ${rule}\n  }`);
      targets.set(rule, target);
    }
    elements[family].push(`${port.ip} . ${port.protocol} . ${port.port} : goto ${target}`);
    if (port.nodePort === undefined) continue;
    for (const ip of nodeIps.filter((nodeIp) => familyOf(nodeIp) === family))
      elements[family].push(`${ip} . ${port.protocol} . ${port.nodePort} : goto ${target}`);
  }
  const isRefused = (element: string): boolean => element.endsWith("goto refuse");
  const unique = (list: readonly string[]): string[] => [...new Map(list.map((element) => [element.split(" : ")[0], element])).values()];
  const served = (family: Family): string[] => unique(elements[family]).filter((element) => !isRefused(element));
  const refused = (family: Family): string[] => unique(elements[family]).filter(isRefused);
  const backends = [...new Set(ports.flatMap(({ endpoints }) => endpoints.map(({ ip }) => ip)))].sort();
  const itself = (family: Family): string[] => backends.filter((ip) => familyOf(ip) === family).map((ip) => `${ip} . ${ip}`);
  return [
    `table inet ${serviceTable}`,
    `delete table inet ${serviceTable}`,
    `table inet ${serviceTable} {`,
    map("served4", "ipv4_addr . inet_proto . inet_service : verdict", "map", served("ipv4")),
    map("served6", "ipv6_addr . inet_proto . inet_service : verdict", "map", served("ipv6")),
    map("refused4", "ipv4_addr . inet_proto . inet_service : verdict", "map", refused("ipv4")),
    map("refused6", "ipv6_addr . inet_proto . inet_service : verdict", "map", refused("ipv6")),
    map("itself4", "ipv4_addr . ipv4_addr", "set", itself("ipv4")),
    map("itself6", "ipv6_addr . ipv6_addr", "set", itself("ipv6")),
    ...chains,
    "  chain refuse {\n    meta l4proto tcp reject with tcp reset\n    reject\n  }",
    // Before the translation at -100: a nat chain cannot refuse.
    hook("refuse_forwarded", "filter hook prerouting priority -110", lookups("refused")),
    hook("refuse_local", "filter hook output priority -110", lookups("refused")),
    hook("translate_forwarded", "nat hook prerouting priority -100", lookups("served")),
    hook("translate_local", "nat hook output priority -100", lookups("served")),
    // What still carries a service address after translation names a port that no service has.
    hook("unknown_forwarded", "filter hook forward priority 0", unknown()),
    hook("unknown_local", "filter hook output priority 0", unknown()),
    // A pod that reaches itself must not see its own address as the peer's, or it would answer past the translation.
    hook("hairpin", "nat hook postrouting priority 100", [
      "ip saddr . ip daddr @itself4 masquerade",
      "ip6 saddr . ip6 daddr @itself6 masquerade",
      // Node ports may lead to another node, whose pod would answer the caller directly.
      ...nodeIps.map((ip) => `ct status dnat ct original ${familyOf(ip) === "ipv4" ? "ip" : "ip6"} daddr ${ip} masquerade`),
    ]),
    "}",
    "",
  ].join("\n");
}

function translation({ protocol, endpoints }: VirtualPort, family: Family): string {
  const keyword = family === "ipv4" ? "ip" : "ip6";
  const [only] = endpoints;
  if (endpoints.length === 1 && only !== undefined) {
    return `meta l4proto ${protocol} dnat ${keyword} to ${family === "ipv4" ? only.ip : `[${only.ip}]`}:${only.port}`;
  }
  const choices = endpoints.map(({ ip, port }, index) => `${index} : ${ip} . ${port}`).join(", ");
  return `meta l4proto ${protocol} dnat ${keyword} to numgen random mod ${endpoints.length} map { ${choices} }`;
}

function map(name: string, type: string, keyword: "map" | "set", elements: readonly string[]): string {
  const content = elements.length === 0 ? "" : `\n    elements = { ${elements.join(", ")} }`;
  return `  ${keyword} ${name} {\n    type ${type}${content}\n  }`;
}

function hook(name: string, where: string, rules: readonly string[]): string {
  return `  chain ${name} {\n    type ${where}; policy accept\n${rules.map((rule) => `    ${rule}`).join("\n")}\n  }`;
}

function lookups(prefix: string): string[] {
  return [`ip daddr . meta l4proto . th dport vmap @${prefix}4`, `ip6 daddr . meta l4proto . th dport vmap @${prefix}6`];
}

function unknown(): string[] {
  return [`ip daddr ${serviceRanges.ipv4} goto refuse`, `ip6 daddr ${serviceRanges.ipv6} goto refuse`];
}

function clusterIps(service: Service): string[] {
  const { clusterIPs, clusterIP, type } = service.spec ?? {};
  if (type === "ExternalName") return [];
  const all = clusterIPs ?? (clusterIP === undefined ? [] : [clusterIP]);
  return all.filter((ip) => ip !== "" && ip !== "None");
}

function protocolOf(port: ServicePort): "tcp" | "udp" | undefined {
  const protocol = port.protocol ?? "TCP";
  return protocol === "TCP" ? "tcp" : protocol === "UDP" ? "udp" : undefined;
}

function readyEndpoints(slices: readonly EndpointSlice[], port: ServicePort, family: Family): { ip: string; port: number }[] {
  const found = new Map<string, { ip: string; port: number }>();
  for (const slice of slices) {
    if (slice.addressType !== (family === "ipv4" ? "IPv4" : "IPv6")) continue;
    const target = slice.ports?.find(
      (candidate) => (candidate.name ?? "") === (port.name ?? "") && (candidate.protocol ?? "TCP") === (port.protocol ?? "TCP"),
    )?.port;
    if (target === undefined) continue;
    for (const endpoint of slice.endpoints ?? []) {
      if (endpoint.conditions?.ready === false) continue;
      for (const ip of endpoint.addresses) found.set(`${ip} ${target}`, { ip, port: target });
    }
  }
  return [...found.values()].sort((a, b) => a.ip.localeCompare(b.ip) || a.port - b.port);
}

function nameOf({ ip, protocol, port }: VirtualPort): string {
  return `${ip} ${protocol} ${String(port).padStart(5, "0")}`;
}
