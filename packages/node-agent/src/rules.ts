/**
 * The redirection rules of a pod as nft text (ztunnel contract 7.2 and 7.6). Pure. Applied as one transaction over whatever stands:
 * there is no moment without rules, so a restart of the agent opens no window.
 */
import type { CaptureOptions } from "./enrolment.ts";

export interface RuleOptions extends CaptureOptions {
  /** The addresses that the kubelet's probes come from: they are let through. */
  readonly probeIpv4: string;
  readonly probeIpv6: string;
}

export const natTable = "istio-ambient-nat";
export const mangleTable = "istio-ambient-mangle";
export const rawTable = "istio-ambient-raw";

export const outboundPort = 15001;
export const inboundPort = 15006;
export const tunnelPort = 15008;
export const dnsPort = 15053;

/** Packets of ztunnel's own sockets (`Z` in the contract), and connections of ztunnel to the application. */
const fromZtunnel = "meta mark and 0xfff == 0x539";
const notFromZtunnel = "meta mark and 0xfff != 0x539";
const tcp = "meta l4proto tcp";

export function podRules(options: RuleOptions): string {
  const tables = [nat(options), mangle(), ...(options.dnsCapture ? [raw()] : [])];
  // Without DNS capture a table of an earlier wish must go.
  const stale = options.dnsCapture ? "" : removal(rawTable);
  return `${stale}${tables.join("")}`;
}

/**
 * Takes only the redirection out, also where there is none: the pod sends and receives as if it were in no mesh, while what keeps
 * ztunnel's connections to the application going still stands.
 */
export function podCaptureRemoval(): string {
  return removal(natTable);
}

/** Takes every rule of ours out of a pod, also where there is none. */
export function podRulesRemoval(): string {
  return removal(natTable, mangleTable, rawTable);
}

function removal(...tables: readonly string[]): string {
  return tables.map((table) => `add table inet ${table}\ndelete table inet ${table}\n`).join("");
}

function nat({ bypassInbound, dnsCapture, virtualInterfaces, probeIpv4, probeIpv6 }: RuleOptions): string {
  const inbound = bypassInbound
    ? []
    : [
        `ip saddr ${probeIpv4} ${tcp} counter accept`,
        `ip6 saddr ${probeIpv6} ${tcp} counter accept`,
        `ip daddr != 127.0.0.1 tcp dport != ${tunnelPort} ${notFromZtunnel} counter redirect to :${inboundPort}`,
        `ip6 daddr != ::1 tcp dport != ${tunnelPort} ${notFromZtunnel} counter redirect to :${inboundPort}`,
      ];
  const dns = dnsCapture
    ? [
        `oifname != "lo" udp dport 53 ${notFromZtunnel} counter redirect to :${dnsPort}`,
        `ip daddr != 127.0.0.1 tcp dport 53 ${notFromZtunnel} counter redirect to :${dnsPort}`,
        `ip6 daddr != ::1 tcp dport 53 ${notFromZtunnel} counter redirect to :${dnsPort}`,
      ]
    : [];
  return table(natTable, {
    prerouting: {
      hook: "type nat hook prerouting priority -100; policy accept;",
      rules: [
        ...virtualInterfaces.flatMap((name) => [`iifname "${name}" ${tcp} counter redirect to :${outboundPort}`, `iifname "${name}" counter return`]),
        ...inbound,
      ],
    },
    output: {
      hook: "type nat hook output priority -100; policy accept;",
      rules: [
        `ip daddr ${probeIpv4} ${tcp} counter accept`,
        `ip6 daddr ${probeIpv6} ${tcp} counter accept`,
        ...dns,
        `${tcp} meta mark and 0xfff == 0x111 counter accept`,
        // The application calls itself by the pod's own address.
        'ip daddr != 127.0.0.1 oifname "lo" counter accept',
        'ip6 daddr != ::1 oifname "lo" counter accept',
        `ip daddr != 127.0.0.1 ${tcp} ${notFromZtunnel} counter redirect to :${outboundPort}`,
        `ip6 daddr != ::1 ${tcp} ${notFromZtunnel} counter redirect to :${outboundPort}`,
      ],
    },
  });
}

/** Remembers connections from ztunnel to the application, so that the answers find their way back to ztunnel (contract 7.3). */
function mangle(): string {
  return table(mangleTable, {
    prerouting: {
      hook: "type filter hook prerouting priority -150; policy accept;",
      rules: [`${fromZtunnel} counter ct mark set ct mark and 0xfffff000 or 0x111`],
    },
    output: {
      hook: "type route hook output priority -150; policy accept;",
      rules: ["ct mark and 0xfff == 0x111 counter meta mark set ct mark"],
    },
  });
}

/** A conntrack zone of its own for ztunnel's own DNS questions: they must not meet the redirected ones. */
function raw(): string {
  return table(rawTable, {
    prerouting: { hook: "type filter hook prerouting priority -300; policy accept;", rules: [`udp sport 53 ${notFromZtunnel} counter ct zone set 1`] },
    output: { hook: "type filter hook output priority -300; policy accept;", rules: [`udp dport 53 ${fromZtunnel} counter ct zone set 1`] },
  });
}

interface Hooked {
  readonly hook: string;
  readonly rules: readonly string[];
}

function table(name: string, { prerouting, output }: { readonly prerouting: Hooked; readonly output: Hooked }): string {
  return [
    `add table inet ${name}`,
    `flush table inet ${name}`,
    `table inet ${name} {`,
    ...chain("istio-prerouting", prerouting.rules),
    ...chain("istio-output", output.rules),
    ...chain("prerouting", [prerouting.hook, "counter jump istio-prerouting"]),
    ...chain("output", [output.hook, "counter jump istio-output"]),
    "}",
    "",
  ].join("\n");
}

function chain(name: string, lines: readonly string[]): readonly string[] {
  return [`  chain ${name} {`, ...lines.map((line) => `    ${line}`), "  }"];
}
