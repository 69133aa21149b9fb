/** The node agent put together: opened in order, closed in reverse. */
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type KubeClient, resources } from "@fairway/kube";
import { currentNamespace, hasIpv6, type NetworkNamespace, openNamespace, selfTest } from "@fairway/linux";
import { type AdminHandler, type Clock, createRegistry, type Logger, MeshError, metricsRoutes, Readiness, serveAdmin } from "@fairway/runtime";
import type { AgentConfig } from "./config.ts";
import { Enroller } from "./enroller.ts";
import { findPodNamespaces } from "./find-pod-namespace.ts";
import { HostProbes } from "./host-probes.ts";
import { CniInstallation } from "./install.ts";
import { proveCapture } from "./live-probe.ts";
import { createAgentMetrics } from "./metrics.ts";
import { PluginServer } from "./plugin-server.ts";
import { Pods } from "./pods.ts";
import { resolveProbeSource } from "./probe-source.ts";
import { podRedirection } from "./rules-apply.ts";
import { watchForUninstall } from "./uninstall.ts";
import { ZdsServer } from "./zds-server.ts";

const uninstallTimeoutMs = 10_000;

export interface AgentOptions {
  readonly config: AgentConfig;
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Logger;
  /** Aborts to stop: everything stays on the node, unless the agent's DaemonSet is gone. */
  readonly stop: AbortSignal;
}

/** Runs until `stop`. Throws what keeps it from starting. */
export async function runAgent(options: AgentOptions): Promise<void> {
  try {
    await serve(options);
  } catch (thrown) {
    // Stopped while it was starting: nothing is wrong.
    if (!options.stop.aborted) throw thrown;
  }
}

async function serve({ config, client, clock, log, stop }: AgentOptions): Promise<void> {
  await using stack = new AsyncDisposableStack();
  await selfTest();
  const readiness = new Readiness();
  const starting = readiness.block("pods and namespaces");
  const installing = config.cniEnabled ? readiness.block("CNI configuration") : undefined;
  const registry = createRegistry();

  // Health first: the kubelet looks while the API server is still being asked.
  const everywhere = hasIpv6(undefined) ? "::" : "0.0.0.0";
  stack.use(await serveAdmin({ host: everywhere, port: config.healthPort }, healthRoutes(readiness)));
  stack.use(await serveAdmin({ host: everywhere, port: config.metricsPort }, metricsRoutes(registry)));

  const own = stack.use(currentNamespace());
  const host = stack.use(hostNamespace(config.hostProc));
  const source = resolveProbeSource(config.probeSource, config.hostProc);
  const probes = new HostProbes({ namespace: host, probeIpv4: config.probeIpv4, probeIpv6: config.probeIpv6, source });

  const pods = stack.use(client.collection(resources.pods, { fieldSelector: `spec.nodeName=${config.nodeName}` }));
  const namespaces = stack.use(client.collection(resources.namespaces));

  let zds: ZdsServer | undefined;
  const metrics = createAgentMetrics(registry, {
    enrolled: () => enroller.enrolled,
    pending: () => enroller.pending,
    ztunnels: () => zds?.connected ?? 0,
    resyncAgeSeconds: () => reconciler.resyncAgeSeconds,
  });
  const enroller = stack.use(
    new Enroller({
      client,
      zds: () => zds ?? absentZtunnels,
      probes,
      redirection: podRedirection(["/proc", config.hostProc]),
      prove: proveCapture,
      find: (uids) => findPodNamespaces(uids, { hostProc: config.hostProc, exclude: [host, own] }),
      probeIpv4: config.probeIpv4,
      probeIpv6: config.probeIpv6,
      clock,
      metrics,
      log: log.scope("enrol"),
    }),
  );
  const { excludeNamespaces, dnsCapture, podNamespace: systemNamespace } = config;
  const reconciler = stack.use(
    new Pods({ pods, namespaces, enroller, enrolment: { excludeNamespaces, dnsCapture, systemNamespace }, clock, log: log.scope("pods") }),
  );

  await Promise.race([Promise.all([pods.synced, namespaces.synced]), aborted(stop)]);
  if (stop.aborted) return;
  reconciler.adopt();
  for (const path of [config.zdsSocket, config.pluginSocket]) mkdirSync(dirname(path), { recursive: true });
  zds = stack.use(
    await ZdsServer.listen({
      path: config.zdsSocket,
      log: log.scope("zds"),
      clock,
      snapshot: () => enroller.snapshot(),
      onReady: () => reconciler.ztunnelReady(),
    }),
  );
  await probes.install(stop);
  reconciler.start();
  stack.use(await PluginServer.listen({ path: config.pluginSocket, client, pods: reconciler, hostProc: config.hostProc, metrics, log: log.scope("cni") }));
  const installation = config.cniEnabled
    ? stack.use(
        await CniInstallation.start({
          binDir: config.cniBinDir,
          hostBinDir: config.cniHostBinDir,
          confDir: config.cniConfDir,
          pluginFile: join(dirname(fileURLToPath(import.meta.url)), "fairway-cni.cjs"),
          nodeFile: process.execPath,
          hostNodeFile: config.cniHostNode,
          entry: { agentSocket: config.pluginHostSocket, agentNamespace: config.podNamespace, agentPodPrefix: config.agentPodPrefix, excludeNamespaces },
          clock,
          log: log.scope("install"),
          onInstalled: () => installing?.[Symbol.dispose](),
        }),
      )
    : undefined;
  const leaving = await watchForUninstall(client, config, log);
  starting[Symbol.dispose]();
  log.info("node agent running", { node: config.nodeName, probes: source.kind, cni: config.cniEnabled });
  await aborted(stop);
  const uninstall = await leaving.uninstall();
  if (uninstall === "no") return;
  // Without an agent the plugin would keep every pod of the node from starting.
  await installation?.uninstall();
  if (uninstall === "likely") {
    log.warn("the agent's rights are gone, so this looks like an uninstall; pods stay captured until their labels or they themselves go");
    return;
  }
  log.info("the node agent is being uninstalled: letting all pods go");
  const deadline = AbortSignal.timeout(uninstallTimeoutMs);
  await reconciler.releaseAll(deadline);
  await probes.uninstall(deadline).catch((thrown: unknown) => {
    log.warn("the node's probe rules were not removed", { error: MeshError.from(thrown, "NODE_AGENT_UNINSTALL_FAILED") });
  });
}

/** Before the ZDS socket stands there is nobody to hand a pod to. */
const absentZtunnels: Pick<ZdsServer, "add" | "remove"> = {
  add: async () => {
    throw new MeshError("NODE_AGENT_ZTUNNEL_ABSENT", "the node agent is still starting");
  },
  remove: async () => {},
};

/** The node's own network namespace: that of its first process. */
function hostNamespace(hostProc: string): NetworkNamespace {
  try {
    return openNamespace(join(hostProc, "1/ns/net"));
  } catch (cause) {
    throw new MeshError(
      "NODE_AGENT_NO_HOST_PROC",
      `cannot open the node's network namespace below ${hostProc}; mount the host's /proc there and grant CAP_SYS_PTRACE`,
      { cause },
    );
  }
}

function healthRoutes(readiness: Readiness): Map<string, AdminHandler> {
  return new Map<string, AdminHandler>([
    ["/healthz", () => ({ body: "ok\n" })],
    [
      "/readyz",
      () => {
        const { pending } = readiness;
        return pending.length === 0 ? { body: "ok\n" } : { status: 503, body: `not ready, pending: ${pending.join(", ")}\n` };
      },
    ],
  ]);
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
