/** Policy decisions in words: the error of a denial, and the lines that say what was decided and what a dry run would have (contract 6.3). */
import { type ConnectionFacts, formatSocketAddress, type SpiffeId, type Verdict } from "@fairway/model";
import type { MeshError } from "@fairway/runtime";
import { Bare, type Logger } from "@fairway/runtime";
import { ztunnelError } from "./failure.ts";

/** The error of a refused connection; it names the policy and both identities, so that the log alone says why. */
export function denial(verdict: Verdict & { allowed: false }, ends: { source: SpiffeId | undefined; destination: SpiffeId }): MeshError {
  const source = ends.source ?? "none (plaintext)";
  return ztunnelError(
    "ZTUNNEL_POLICY_DENIED",
    `connection closed due to policy rejection: ${verdict.message} (source identity ${source}, destination identity ${ends.destination})`,
  );
}

/** Logs every verdict; `info` for those who want to see them all, else debug. Dry-run results are always news. */
export function policyLogger(log: Logger, options: { decisionsAtInfo: boolean }): (facts: ConnectionFacts, verdict: Verdict, live: boolean) => void {
  const policyLog = log.scope("policy");
  const level = options.decisionsAtInfo ? "info" : "debug";
  return (facts, verdict, live) => {
    // A live connection that stays allowed is no event.
    const decided = !(live && verdict.allowed) && policyLog.enabled(level);
    if (!decided && verdict.dryRun.length === 0) return;
    const subject = {
      "src.addr": new Bare(formatSocketAddress(facts.source)),
      "src.identity": facts.identity,
      "dst.addr": new Bare(formatSocketAddress(facts.destination)),
    };
    if (decided) {
      const message = verdict.allowed ? "allowed" : verdict.message;
      policyLog[level](live ? "policy decision on a live connection" : "policy decision", {
        ...subject,
        allowed: verdict.allowed,
        policy: verdict.policy,
        message,
      });
    }
    if (live) return;
    for (const { policy, effect } of verdict.dryRun) policyLog.info("dry run", { ...subject, policy, effect });
  };
}
