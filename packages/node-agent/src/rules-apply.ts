/** Puts a pod's rules and routes in place, looks whether they still are, and takes them out. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { applyNft, hasIpv6, inNamespace, type NetworkNamespace, runIn } from "@fairway/linux";
import { MeshError } from "@fairway/runtime";
import { mangleTable, natTable, podCaptureRemoval, podRules, podRulesRemoval, type RuleOptions } from "./rules.ts";

/** Answers of the application to a foreign address are delivered to ztunnel, locally (ztunnel contract 7.2). */
const rulePreference = 32_764;
const routeTable = 100;
const policyRule = `fwmark 0x111/0xfff lookup ${routeTable} pref ${rulePreference}`;

/** The pod's rules as the kernel holds them, to recognise a change that is not ours. */
export type RulesFingerprint = string;

export interface PodRedirection {
  /** Idempotent; never opens a moment without rules. */
  apply(namespace: NetworkNamespace, options: RuleOptions, signal: AbortSignal): Promise<RulesFingerprint>;
  /** What stands now; undefined when a table is missing. */
  inspect(namespace: NetworkNamespace, signal: AbortSignal): Promise<RulesFingerprint | undefined>;
  /** Ends the capture; what came through a tunnel still reaches the application and is answered. Idempotent. */
  uncapture(namespace: NetworkNamespace, signal: AbortSignal): Promise<void>;
  /** Takes out everything. Idempotent. */
  remove(namespace: NetworkNamespace, signal: AbortSignal): Promise<void>;
}

/**
 * The kernel's redirection. `procRoots` are mounts of /proc, the first that can be written decides: containers often see their own
 * read-only.
 */
export function podRedirection(procRoots: readonly string[] = ["/proc"]): PodRedirection {
  return {
    async apply(namespace, options, signal) {
      setKernel(namespace, procRoots, looseTracking, "0");
      setKernel(namespace, procRoots, migrateRequests, "1");
      for (const family of families(namespace)) await routeAnswersBack(namespace, family, signal);
      await applyNft(namespace, podRules(options), { signal });
      const fingerprint = await listed(namespace, signal);
      if (fingerprint === undefined)
        throw new MeshError("NODE_AGENT_RULES_LOST", "the pod's rules were applied and are not there; does something else manage nftables in the pod?");
      return fingerprint;
    },
    inspect: listed,
    async uncapture(namespace, signal) {
      await applyNft(namespace, podCaptureRemoval(), { signal });
    },
    async remove(namespace, signal) {
      await applyNft(namespace, podRulesRemoval(), { signal });
      setKernel(namespace, procRoots, looseTracking, "1");
      setKernel(namespace, procRoots, migrateRequests, "0");
      for (const family of families(namespace)) {
        if (await hasPolicyRule(namespace, family, signal)) await runIn(namespace, ["ip", family, "rule", "del", ...policyRule.split(" ")], { signal });
        // An absent table is an empty one: nothing to flush is success.
        await runIn(namespace, ["ip", "-force", family, "-batch", "-"], { signal, input: `route flush table ${routeTable}\n` }).catch(() =>
          signal.throwIfAborted(),
        );
      }
    },
  };
}

/**
 * Connections that are open when a pod is enrolled live on only if conntrack does not take their next packet for the first of a new
 * connection: it would be redirected, and ztunnel's side knows nothing of it and resets. It also closes a way around: no entry can be
 * planted by a packet out of nowhere. Where it cannot be set, open connections are reset once, as without it.
 */
const looseTracking = "sys/net/netfilter/nf_conntrack_tcp_loose";

/**
 * A ztunnel that hands over to a new one closes its listeners while connections arrive: those in its queue, and those in their handshake, go on
 * with a listener of the new one instead of being reset (Linux 5.14; where it cannot be set, those of that instant are lost).
 */
const migrateRequests = "sys/net/ipv4/tcp_migrate_req";

function setKernel(namespace: NetworkNamespace, procRoots: readonly string[], setting: string, value: "0" | "1"): void {
  inNamespace(namespace, () => {
    for (const root of procRoots) {
      try {
        writeFileSync(join(root, setting), value);
        return;
      } catch {
        // Read-only, or a kernel without it: the next mount may do.
      }
    }
  });
}

/** Without counters, which change with every packet; undefined when one of the two tables that every pod has is missing. */
async function listed(namespace: NetworkNamespace, signal: AbortSignal): Promise<RulesFingerprint | undefined> {
  const { stdout } = await runIn(namespace, ["nft", "-s", "list", "ruleset", "inet"], { signal });
  const tables = ownTables(stdout);
  return [natTable, mangleTable].every((name) => tables.has(name)) ? [...tables.values()].join("\n") : undefined;
}

/** Our tables in a ruleset: somebody else's may change as they like. */
export function ownTables(ruleset: string): ReadonlyMap<string, string> {
  const found = [...ruleset.matchAll(/^table inet (istio-ambient-[a-z]+) \{\n.*?^\}$/gms)];
  return new Map(found.map(([text, name = ""]): [string, string] => [name, text]).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

function families(namespace: NetworkNamespace): readonly ("-4" | "-6")[] {
  return hasIpv6(namespace) ? ["-4", "-6"] : ["-4"];
}

async function routeAnswersBack(namespace: NetworkNamespace, family: "-4" | "-6", signal: AbortSignal): Promise<void> {
  const lines = [`route replace local default dev lo table ${routeTable}`];
  if (!(await hasPolicyRule(namespace, family, signal))) lines.push(`rule add ${policyRule}`);
  await runIn(namespace, ["ip", family, "-batch", "-"], { signal, input: `${lines.join("\n")}\n` });
}

async function hasPolicyRule(namespace: NetworkNamespace, family: "-4" | "-6", signal: AbortSignal): Promise<boolean> {
  const { stdout } = await runIn(namespace, ["ip", "-json", family, "rule", "list"], { signal });
  return isPolicyRuleListed(stdout);
}

/** Reads `ip -json rule list`. */
export function isPolicyRuleListed(json: string): boolean {
  let rules: unknown;
  try {
    rules = JSON.parse(json);
  } catch {
    return false;
  }
  return (
    Array.isArray(rules) &&
    rules.some(
      (rule: unknown) =>
        typeof rule === "object" &&
        rule !== null &&
        "priority" in rule &&
        rule.priority === rulePreference &&
        "table" in rule &&
        String(rule.table) === String(routeTable) &&
        "fwmark" in rule &&
        rule.fwmark === "0x111",
    )
  );
}
