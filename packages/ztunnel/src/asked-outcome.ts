/** How it went, in the few words that a client of SOCKS5 or HTTP can be told. */
import { errorCode } from "@fairway/runtime";

export type AskedOutcome = "denied" | "unresolved" | "refused" | "timeout" | "failed";

const outcomes: ReadonlyMap<string, AskedOutcome> = new Map<string, AskedOutcome>([
  ["ZTUNNEL_NAME_UNRESOLVED", "unresolved"],
  ["LINUX_DIAL_REFUSED", "refused"],
  ["LINUX_DIAL_TIMEOUT", "timeout"],
  ["ZTUNNEL_HBONE_TIMEOUT", "timeout"],
]);

export function outcomeOf(error: Error): AskedOutcome {
  const code = errorCode(error) ?? "";
  // 401 is how a destination's policy refuses (ztunnel contract 1.6).
  if (code === "HBONE_REFUSED" && Reflect.get(Object(Reflect.get(error, "details")), "status") === 401) return "denied";
  return outcomes.get(code) ?? "failed";
}
