/** Named network namespaces and the few operations this package does in them, each as one process for a whole batch. */
import { existsSync } from "node:fs";
import { mustRun } from "../command.ts";
import type { Ledger } from "../ledger.ts";

/** Where iproute2 keeps the handle of a named namespace. */
export function namespacePath(name: string): string {
  return `/run/netns/${name}`;
}

/** Creates a namespace with its loopback up. `sysctls` are set before any device exists, so that `default` values are inherited. */
export async function createNamespace(ledger: Ledger, name: string, sysctls: Readonly<Record<string, string>> = {}): Promise<string> {
  ledger.record({ kind: "namespace", name });
  await mustRun(["ip", "netns", "add", name]);
  const path = namespacePath(name);
  const settings = Object.entries({ ...quietSysctls, ...sysctls });
  // Settings this kernel was built without (bridge netfilter, IPv6) are skipped: what is absent does not need turning off.
  const script = settings.map(([key, value]) => `f=/proc/sys/${key.replaceAll(".", "/")}; [ ! -e $f ] || echo ${value} > $f`).join("\n");
  await mustRun(["nsenter", `--net=${path}`, "sh", "-eu", "-c", `${script}\nip link set lo up`]);
  return path;
}

/** Deletes a namespace and with it its devices and rules; one that is gone already is fine. */
export async function deleteNamespace(name: string): Promise<void> {
  if (existsSync(namespacePath(name))) await mustRun(["ip", "netns", "del", name]);
}

/** Runs several ip(8) commands in a namespace, in order; stops at the first that fails. */
export async function ipBatch(name: string, commands: readonly string[]): Promise<void> {
  await mustRun(["ip", "-n", name, "-batch", "-"], { stdin: `${commands.join("\n")}\n` });
}

/** Applies an nft script as one transaction. */
export async function applyRules(name: string, script: string, signal?: AbortSignal): Promise<void> {
  await mustRun(["nsenter", `--net=${namespacePath(name)}`, "nft", "-f", "-"], { stdin: script, signal });
}

// Duplicate address detection would keep IPv6 addresses unusable for about two seconds; the addresses are ours alone.
const quietSysctls: Readonly<Record<string, string>> = {
  "net.ipv6.conf.all.accept_dad": "0",
  "net.ipv6.conf.default.accept_dad": "0",
  "net.ipv6.conf.all.accept_ra": "0",
  "net.ipv6.conf.default.accept_ra": "0",
  // A pod that learnt a shorter way to its neighbour would pass by the node's address translation.
  "net.ipv6.conf.all.accept_redirects": "0",
  "net.ipv6.conf.default.accept_redirects": "0",
  "net.ipv4.conf.all.accept_redirects": "0",
  "net.ipv4.conf.default.accept_redirects": "0",
};

/** What a namespace that forwards needs. Redirects are off because pods on one bridge must keep talking through the node's rules. */
export const forwardingSysctls: Readonly<Record<string, string>> = {
  "net.ipv4.ip_forward": "1",
  "net.ipv6.conf.all.forwarding": "1",
  "net.ipv6.conf.default.forwarding": "1",
  "net.ipv4.conf.all.send_redirects": "0",
  "net.ipv4.conf.default.send_redirects": "0",
  "net.ipv4.conf.all.rp_filter": "0",
  "net.ipv4.conf.default.rp_filter": "0",
  "net.bridge.bridge-nf-call-iptables": "0",
  "net.bridge.bridge-nf-call-ip6tables": "0",
  "net.bridge.bridge-nf-call-arptables": "0",
};
