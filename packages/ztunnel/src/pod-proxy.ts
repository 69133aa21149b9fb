/**
 * One pod: its network, its listeners, its directions, its tunnels, its live connections. It shares nothing with other pods but what it
 * is handed, and keeps no state of the process: every thread that carries traffic has one for each pod.
 */
import type { Socket } from "node:net";
import type { HboneMetrics, TunnelEngine } from "@fairway/hbone";
import type { Listener, PodNetwork } from "@fairway/linux";
import type { CertificateSource, MeshTls } from "@fairway/pki";
import { assertNever, type Logger, TaskGroup } from "@fairway/runtime";
import type { MeshView } from "@fairway/xds";
import type { PodName, ProxyConfig } from "./config.ts";
import { type ConnectionSummary, Connections } from "./connections.ts";
import { DnsProxy } from "./dns-proxy.ts";
import { type AskingProtocol, ExplicitProxy } from "./explicit-proxy.ts";
import { ztunnelError } from "./failure.ts";
import type { IdleTunnels } from "./idle-tunnels.ts";
import { Inbound } from "./inbound.ts";
import { LocalWorkloadSource } from "./local-workload.ts";
import type { MeshNames } from "./mesh-names.ts";
import type { NameLookup } from "./next-hop.ts";
import { Outbound } from "./outbound.ts";
import { Passthrough } from "./passthrough.ts";
import type { TunnelScope } from "./pod-scope.ts";
import { policyLogger } from "./policy-log.ts";
import type { Revocation } from "./revocation.ts";
import type { Telemetry } from "./telemetry.ts";
import { Tunnels } from "./tunnels.ts";

/** What may listen in a pod. Each kind is one port and one way to take what comes. */
export type ListenerKind = "hbone" | "plaintext" | "outbound" | "dns" | AskingProtocol;

/** Everything a pod has, DNS where it is configured; without `outbound` and `plaintext` for the ztunnel's own pod, which is not captured (contract 5B.5). */
export const capturedPod: readonly ListenerKind[] = ["hbone", "plaintext", "outbound", "dns"];

/** What all pods of a thread are given. */
export interface PodProxyParts extends Telemetry {
  readonly config: ProxyConfig;
  readonly mesh: MeshView;
  readonly names: MeshNames;
  readonly certificates: Pick<CertificateSource, "fetch">;
  readonly tls: MeshTls;
  readonly engine: TunnelEngine;
  /** Of all pods of the thread together. */
  readonly idleTunnels: IdleTunnels;
  /** Undefined where nobody is ever revoked; it is the one that `tls` asks. */
  readonly revocation: Revocation | undefined;
  readonly tunnelMetrics: HboneMetrics;
  readonly log: Logger;
  readonly random: () => number;
  readonly randomBytes: (size: number) => Uint8Array;
  readonly lookup: NameLookup;
}

export interface PodProxyOptions {
  /** The pod's uid in Kubernetes. */
  readonly uid: string;
  readonly pod: PodName;
  /** Owned by the proxy from here on. */
  readonly network: PodNetwork;
  readonly kinds: readonly ListenerKind[];
}

const backlog = 128;

/**
 * What the kernel has established so far is accepted: the event loop looked at every listener once more. Needed where the kernel does not
 * hand the queue of a closing listener on to another of the same port (before Linux 5.14, or without `net.ipv4.tcp_migrate_req`).
 */
async function acceptedSoFar(): Promise<void> {
  for (let turn = 0; turn < 2; turn++) await new Promise((resolve) => setImmediate(resolve));
}

export class PodProxy implements AsyncDisposable {
  readonly pod: PodName;
  readonly #scope: TunnelScope;
  readonly #inbound: Inbound;
  readonly #tunnels: Tunnels;
  readonly #outbound: Outbound;
  readonly #explicit: ExplicitProxy;
  readonly #passthrough: Passthrough;
  readonly #listeners = new Map<ListenerKind, Listener>();
  #dns: DnsProxy | undefined;
  #stopped: Promise<void> | undefined;

  private constructor(parts: PodProxyParts, { uid, pod, network }: PodProxyOptions) {
    const { config, mesh, log, clock } = parts;
    const tasks = new TaskGroup(log);
    const connections = new Connections({ mesh, tasks, onVerdict: policyLogger(log, { decisionsAtInfo: config.policyDecisionsAtInfo }) });
    const local = new LocalWorkloadSource({ mesh, pod, node: config.nodeName, clock });
    this.pod = pod;
    this.#scope = { ...parts, owner: uid, network, connections, local, tasks };
    this.#tunnels = new Tunnels(this.#scope, parts.tunnelMetrics);
    this.#outbound = new Outbound(this.#scope, this.#tunnels);
    this.#explicit = new ExplicitProxy(this.#scope, this.#outbound);
    this.#inbound = new Inbound(this.#scope, { mayKeepSource: () => this.#listeners.get("hbone")?.transparent ?? false });
    this.#passthrough = new Passthrough(this.#scope, { mayKeepSource: () => this.#listeners.get("plaintext")?.transparent ?? false });
  }

  /** Listens on every port of `options.kinds`, or on none: throws LINUX_LISTEN_FAILED or ZTUNNEL_SOURCE_NOT_KEPT with all closed again. */
  static async start(parts: PodProxyParts, options: PodProxyOptions): Promise<PodProxy> {
    const proxy = new PodProxy(parts, options);
    try {
      for (const kind of options.kinds) await proxy.#listen(kind);
    } catch (thrown) {
      await proxy[Symbol.asyncDispose]();
      throw thrown;
    }
    return proxy;
  }

  /** The port of a listener, for those who asked for any. */
  port(kind: ListenerKind): number | undefined {
    return kind === "dns" ? this.#dns?.port : this.#listeners.get(kind)?.port;
  }

  connections(): { inbound: readonly ConnectionSummary[]; outbound: readonly ConnectionSummary[] } {
    const { connections } = this.#scope;
    return { inbound: connections.list("inbound"), outbound: connections.list("outbound") };
  }

  /** Takes nothing new; resolves when the last connection ended, or when `signal` aborts (contract 10). */
  async drain({ signal }: { signal: AbortSignal }): Promise<void> {
    await acceptedSoFar();
    for (const listener of this.#listeners.values()) listener.close();
    this.#inbound.drain();
    // Clients that chose this listener and are not accepted yet go to another of the port: the pod's kernel hands them on (contract 10).
    await Promise.all([this.#scope.connections.idle({ signal }), this.#dns?.drain({ signal })]);
  }

  /** Connections that live now. */
  get size(): number {
    return this.#scope.connections.size;
  }

  /** Ends everything now, with `reason` in the log of each connection. Once: a second call waits for the first. */
  stop(reason: Error): Promise<void> {
    this.#stopped ??= this.#stop(reason);
    return this.#stopped;
  }

  async #stop(reason: Error): Promise<void> {
    const { connections, tasks, network } = this.#scope;
    for (const listener of this.#listeners.values()) listener.close();
    connections.shutDown(reason);
    this.#inbound.destroy(reason);
    await this.#dns?.[Symbol.asyncDispose]();
    await this.#tunnels[Symbol.asyncDispose]();
    await tasks[Symbol.asyncDispose]();
    connections[Symbol.dispose]();
    await network[Symbol.asyncDispose]();
    network.namespace?.[Symbol.dispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop(ztunnelError("ZTUNNEL_POD_STOPPED", "the pod is no longer served"));
  }

  async #listen(kind: ListenerKind): Promise<void> {
    const { config, network } = this.#scope;
    if (kind === "dns") {
      if (config.dns !== undefined) this.#dns = await DnsProxy.open(this.#scope, config.dns);
      return;
    }
    const listener = await network.listen({
      host: isAsking(kind) ? config.askingHost : config.listenHost,
      port: this.#portOf(kind),
      mark: config.mark,
      reusePort: config.reusePort,
      transparent: config.keepSource !== "never" && !isAsking(kind),
      backlog,
      onConnection: this.#taker(kind),
      // Contract 7.5: tunnels have their own pings.
      keepalive: kind === "hbone" ? undefined : config.keepalive,
    });
    this.#listeners.set(kind, listener);
    if (config.keepSource === "required" && !listener.transparent && kind !== "outbound" && !isAsking(kind)) {
      throw ztunnelError("ZTUNNEL_SOURCE_NOT_KEPT", "the kernel does not let this process keep source addresses, and ENABLE_ORIG_SRC demands it");
    }
  }

  #portOf(kind: Exclude<ListenerKind, "dns">): number {
    const { ports } = this.#scope.config;
    switch (kind) {
      case "hbone":
        return ports.hbone;
      case "plaintext":
        return ports.plaintext;
      case "outbound":
        return ports.outbound;
      case "socks5":
        return ports.socks5;
      case "http-connect":
        return ports.httpConnect;
      default:
        return assertNever(kind);
    }
  }

  #taker(kind: Exclude<ListenerKind, "dns">): (socket: Socket) => void {
    switch (kind) {
      case "hbone":
        return this.#inbound.accept;
      case "plaintext":
        return this.#passthrough.accept;
      case "outbound":
        return this.#outbound.accept;
      case "socks5":
      case "http-connect":
        return this.#explicit.taker(kind);
      default:
        return assertNever(kind);
    }
  }
}

function isAsking(kind: ListenerKind): kind is AskingProtocol {
  return kind === "socks5" || kind === "http-connect";
}
