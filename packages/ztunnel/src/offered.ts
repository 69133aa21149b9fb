/** What of a configuration this program does: the listeners that a pod gets, and the refusal of what would silently not happen. */
import type { Logger } from "@fairway/runtime";
import type { Config } from "./config.ts";
import { ztunnelError } from "./failure.ts";
import { capturedPod, type ListenerKind } from "./pod-proxy.ts";

/** Without the proxy DNS is all that is left (ENABLE_PROXY=false). */
export function podKinds({ proxyEnabled }: Config): readonly ListenerKind[] {
  return proxyEnabled ? capturedPod : ["dns"];
}

/** An error where safety depends on it, a warning where it does not. Throws ZTUNNEL_UNSUPPORTED, naming every variable and what to do. */
export function refuseTheUnsupported(config: Config, log: Logger): void {
  const asked = [
    config.crlPath === undefined ? undefined : "CRL_PATH (unset it; certificates of an hour or less, by SECRET_TTL, stand in for revocation)",
    config.socks5Enabled ? "UNSTABLE_ENABLE_SOCKS5 (unset it; captured connections need no proxy)" : undefined,
  ].filter((name) => name !== undefined);
  if (asked.length > 0) throw ztunnelError("ZTUNNEL_UNSUPPORTED", `this version does not support ${asked.join(", ")}`);
  if (config.proxy.dns?.upstreams.length === 0) log.warn("no nameserver in resolv.conf: pods get answers for names of the mesh only");
  if (config.ca.localPath !== undefined)
    log.warn("LOCAL_CA_PATH: this process signs certificates itself; whoever can read its files can be anybody in the mesh");
  if (config.ca.fake) log.warn("FAKE_CA: certificates are self-signed by this process; for tests only");
}
