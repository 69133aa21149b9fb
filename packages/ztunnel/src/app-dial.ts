/** The last step inwards: a connection to the application, from the client's own address where that is possible (ztunnel contract 7.3, 7.5). */
import type { Socket } from "node:net";
import { ipFamily, parseIp, type SocketAddress } from "@fairway/model";
import { ztunnelError } from "./failure.ts";
import { dialTimeoutMs, type PodScope } from "./pod-scope.ts";

export interface AppDialOptions {
  readonly to: SocketAddress;
  /** The client. */
  readonly source: SocketAddress;
  /** From loopback to loopback: an application tunnel (contract 1.11). */
  readonly loopback: boolean;
  readonly mayKeepSource: boolean;
  readonly signal: AbortSignal;
}

/** Throws LINUX_DIAL_*, ZTUNNEL_SOURCE_NOT_KEPT when the source must be kept and was not, or the signal's reason. */
export async function appDial({ network, config, log }: PodScope, options: AppDialOptions): Promise<Socket> {
  const { to, source, loopback, mayKeepSource, signal } = options;
  const local = loopback && config.localhostAppTunnel;
  const host = local ? parseIp(ipFamily(to.ip) === "ipv6" ? "::1" : "127.0.0.1") : to.ip;
  // A pod that reached itself through its own tunnel: both ends would have the same address.
  const keep = config.keepSource !== "never" && mayKeepSource && !local && source.ip !== to.ip && ipFamily(source.ip) === ipFamily(to.ip);
  const dialled = await network.dial({
    host,
    port: to.port,
    mark: config.mark,
    timeoutMs: dialTimeoutMs,
    signal,
    keepalive: config.keepalive,
    source: keep ? source.ip : undefined,
  });
  // A change of policy, or of the client's mind, in the turn in which the dial ended.
  if (signal.aborted) {
    dialled.socket.destroy();
    throw signal.reason;
  }
  if (keep && !dialled.sourceKept) {
    if (config.keepSource === "required") {
      dialled.socket.destroy();
      throw ztunnelError("ZTUNNEL_SOURCE_NOT_KEPT", `the kernel did not let the application see ${source.ip}; ENABLE_ORIG_SRC demands it`);
    }
    log.warn("the application sees this process's address, not the client's", { client: source.ip });
  }
  return dialled.socket;
}
