/** What of a configuration this program does: the listeners that a pod gets, and a word about what is unwise. */
import { isLoopback, parseIp } from "@fairway/model";
import type { Logger } from "@fairway/runtime";
import type { Config } from "./config.ts";
import { capturedPod, type ListenerKind } from "./pod-proxy.ts";

/** Without the proxy DNS is all that is left (ENABLE_PROXY=false). What an application must be told of is there when it was asked for. */
export function podKinds({ proxyEnabled, socks5Enabled, httpConnectEnabled }: Config): readonly ListenerKind[] {
  if (!proxyEnabled) return ["dns"];
  return [...capturedPod, ...(socks5Enabled ? (["socks5"] as const) : []), ...(httpConnectEnabled ? (["http-connect"] as const) : [])];
}

/** Says what of a configuration is allowed and unwise. */
export function warnOfRisks(config: Config, log: Logger): void {
  if (config.proxy.dns?.upstreams.length === 0) log.warn("no nameserver in resolv.conf: pods get answers for names of the mesh only");
  if (config.ca.localPath !== undefined)
    log.warn("LOCAL_CA_PATH: this process signs certificates itself; whoever can read its files can be anybody in the mesh");
  const { askingHost } = config.proxy;
  if ((config.socks5Enabled || config.httpConnectEnabled) && !isLoopback(parseIp(askingHost)))
    log.warn("EXPLICIT_PROXY_ADDRESS is not loopback: whoever reaches it speaks with the identity of the pod", { address: askingHost });
  if (config.ca.fake) log.warn("FAKE_CA: certificates are self-signed by this process; for tests only");
}
