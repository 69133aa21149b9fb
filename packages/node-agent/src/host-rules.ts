/**
 * The node's own rules (ztunnel contract 7.7): what a local process, the kubelet, sends to an enrolled pod gets a source address that the
 * pod's rules let through. Forwarded traffic is never touched: it belongs to no local socket. Pure.
 */
import { isIPv6 } from "node:net";
import type { ResolvedProbeSource } from "./probe-source.ts";

export interface HostRuleOptions {
  readonly probeIpv4: string;
  readonly probeIpv6: string;
  readonly source: ResolvedProbeSource;
  /** Addresses of enrolled pods. */
  readonly podIps: readonly string[];
}

export const hostTable = "istio-ambient-nat";
const ipv4Set = "istio-inpod-probes-v4";
const ipv6Set = "istio-inpod-probes-v6";

/** The whole table, in one transaction over whatever stands. */
export function hostRules({ probeIpv4, probeIpv6, source, podIps }: HostRuleOptions): string {
  const match = sourceMatch(source);
  const ipv4 = podIps.filter((ip) => !isIPv6(ip));
  const ipv6 = podIps.filter((ip) => isIPv6(ip));
  return [
    `add table inet ${hostTable}`,
    `delete table inet ${hostTable}`,
    `table inet ${hostTable} {`,
    ...addressSet(ipv4Set, "ipv4_addr", ipv4),
    ...addressSet(ipv6Set, "ipv6_addr", ipv6),
    "  chain istio-postrouting {",
    `    ip daddr @${ipv4Set} meta l4proto tcp ${match} counter snat ip to ${probeIpv4}`,
    `    ip6 daddr @${ipv6Set} meta l4proto tcp ${match} counter snat ip6 to ${probeIpv6}`,
    "  }",
    "  chain postrouting {",
    // One before everybody's 100: the first source address chosen for a connection stays.
    "    type nat hook postrouting priority 99; policy accept;",
    "    counter jump istio-postrouting",
    "  }",
    "}",
    "",
  ].join("\n");
}

export function hostRulesRemoval(): string {
  return `add table inet ${hostTable}\ndelete table inet ${hostTable}\n`;
}

function addressSet(name: string, type: string, ips: readonly string[]): readonly string[] {
  const unique = [...new Set(ips)];
  return [`  set ${name} {`, `    type ${type}`, ...(unique.length === 0 ? [] : [`    elements = { ${unique.join(", ")} }`]), "  }"];
}

function sourceMatch(source: ResolvedProbeSource): string {
  switch (source.kind) {
    case "user":
      return `meta skuid ${source.uid}`;
    case "mark":
      return `meta mark 0x${source.mark.toString(16)}`;
    case "any-local":
      // A packet without a local socket has no user and matches nothing.
      return "meta skuid 0-4294967294";
  }
}
