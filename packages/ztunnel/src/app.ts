/**
 * The whole ztunnel put together, in the order in which things start; they end in the reverse order. Everything long-lived is opened
 * here and nowhere else.
 */
import { randomBytes } from "node:crypto";
import { createHboneMetrics, tunnelEngine } from "@fairway/hbone";
import { linuxPodNetwork, type NetworkNamespace, type PodNetwork, selfTest } from "@fairway/linux";
import { spiffeId } from "@fairway/model";
import { type CaClient, type CertificateSource, createMeshTls, SecretManager } from "@fairway/pki";
import { type Clock, createRegistry, type LogFilter, type Logger, type MetricRegistry, Readiness, systemClock, TaskGroup } from "@fairway/runtime";
import type { MeshView } from "@fairway/xds";
import { AccessLog } from "./access-log.ts";
import { serveAdministration } from "./admin.ts";
import type { Config } from "./config.ts";
import { configDump } from "./config-dump.ts";
import { openCa, openMesh } from "./control-plane.ts";
import { ztunnelError } from "./failure.ts";
import { createZtunnelMetrics, registerCertificateMetrics, type ZtunnelMetrics } from "./metrics.ts";
import { systemLookup } from "./next-hop.ts";
import { capturedPod, PodProxy, type PodProxyParts } from "./pod-proxy.ts";
import { type PodState, Pods } from "./pods.ts";
import { prefetchCertificates } from "./prefetch.ts";
import { version } from "./version.ts";
import { runZdsClient } from "./zds-client.ts";

/** Where this program meets the world; tests stand in for some of it. */
export interface Seams {
  readonly clock: Clock;
  readonly selfTest: () => Promise<void>;
  readonly openMesh: (config: Config, parts: { log: Logger; clock: Clock; registry: MetricRegistry }) => Promise<MeshView>;
  readonly openCa: (config: Config, parts: { clock: Clock }) => CaClient;
  readonly podNetwork: (namespace: NetworkNamespace | undefined) => PodNetwork;
}

export const realSeams: Seams = { clock: systemClock, selfTest, openMesh, openCa, podNetwork: (namespace) => linuxPodNetwork(namespace) };

export interface ZtunnelOptions {
  readonly config: Config;
  readonly log: Logger;
  readonly logFilter: LogFilter;
  /** Aborts when the process is to drain and end. */
  readonly stop: AbortSignal;
  readonly seams?: Seams;
}

/** What runs once the mesh is known. */
interface Serving {
  /** Every proxy there is now. */
  readonly proxies: () => readonly PodProxy[];
  readonly pods: () => readonly PodState<PodProxy>[];
  /** Rejects when serving became impossible. Resolves when it was told to end. */
  readonly ended: Promise<void>;
}

/** Runs until `stop`, then drains. Throws when it cannot start, or when the node agent speaks another protocol. */
export async function runZtunnel({ config, log, logFilter, stop, seams = realSeams }: ZtunnelOptions): Promise<void> {
  const { clock } = seams;
  refuseTheUnsupported(config, log);
  const quit = new AbortController();
  const stopping = AbortSignal.any([stop, quit.signal]);
  if (config.mode.kind === "shared") await seams.selfTest();

  await using stack = new AsyncDisposableStack();
  const registry = createRegistry();
  const metrics = createZtunnelMetrics(registry, config.meshVersion);
  const readiness = new Readiness();
  const meshBlocker = readiness.block("state manager");
  const proxyBlocker = readiness.block("proxy");

  const mesh = stack.use(await seams.openMesh(config, { log, clock, registry }));
  const ca = stack.use(seams.openCa(config, { clock }));
  const certificates = stack.use(new SecretManager({ ca, clock, log, ttlMs: config.ca.certificateTtlMs }));
  registerCertificateMetrics(registry, () => certificates.states.current.values());
  const tasks = stack.use(new TaskGroup(log));
  const parts = proxyParts({ config, log, clock, registry, metrics, mesh, certificates });

  let pods: Serving["pods"] = () => [];
  stack.use(
    await serveAdministration({
      ports: config.proxy.ports,
      ipv6: config.ipv6,
      registry,
      readiness,
      logFilter,
      clock,
      dump: () => configDump({ config, snapshot: mesh.snapshot, certificates: certificates.states.current, pods: pods(), version }),
      quit: () => quit.abort(ztunnelError("ZTUNNEL_POD_STOPPED", "told to quit")),
      signal: tasks.signal,
    }),
  );

  // In shared mode no pod is served before the mesh is known; a dedicated one binds its ports at once and lets connections wait.
  const dedicated = config.mode.kind === "dedicated" ? await startOwn(stack, seams, parts, config.mode.pod) : undefined;
  await untilSynced(mesh, stopping);
  meshBlocker[Symbol.dispose]();
  proxyBlocker[Symbol.dispose]();
  if (stopping.aborted) return;
  const own = config.self === undefined ? [] : [spiffeId({ ...config.self, trustDomain: config.trustDomain })];
  if (config.mode.kind === "shared" && config.proxy.nodeName !== undefined) {
    stack.use(prefetchCertificates({ mesh, certificates, node: config.proxy.nodeName, pinned: own }));
  }
  const serving = dedicated ?? (await servePods(stack, { config, seams, parts, readiness, tasks, metrics, log, stopping }));
  pods = serving.pods;
  log.info("ready for connections", { mode: config.mode.kind });
  await Promise.race([serving.ended, aborted(stopping)]);
  await drain(serving.proxies(), { deadlineMs: config.drainDeadlineMs, clock, log });
}

function proxyParts(given: {
  config: Config;
  log: Logger;
  clock: Clock;
  registry: MetricRegistry;
  metrics: ZtunnelMetrics;
  mesh: MeshView;
  certificates: CertificateSource;
}): PodProxyParts {
  const { config, log, clock, registry, metrics, mesh, certificates } = given;
  return {
    config: config.proxy,
    mesh,
    certificates,
    tls: createMeshTls({ clock, allowTls12: config.tls12, ...(config.postQuantumOnly ? { groups: "X25519MLKEM768" } : {}) }),
    engine: tunnelEngine(config.proxy.engine),
    tunnelMetrics: createHboneMetrics(registry),
    metrics,
    accessLog: new AccessLog(log),
    clock,
    log,
    random: Math.random,
    randomBytes,
    lookup: systemLookup,
  };
}

/** Dedicated mode: this process's own network is the pod's. */
async function startOwn(stack: AsyncDisposableStack, seams: Seams, parts: PodProxyParts, pod: PodProxy["pod"]): Promise<Serving> {
  const proxy = stack.use(await PodProxy.start(parts, { uid: `${pod.namespace}/${pod.name}`, pod, network: seams.podNetwork(undefined), kinds: capturedPod }));
  return { proxies: () => [proxy], pods: () => [], ended: new Promise(() => {}) };
}

/** Shared mode: the pods that the node agent names, and this process's own port 15008 (contract 5B.5). */
async function servePods(
  stack: AsyncDisposableStack,
  given: {
    config: Config;
    seams: Seams;
    parts: PodProxyParts;
    readiness: Readiness;
    tasks: TaskGroup;
    metrics: ZtunnelMetrics;
    log: Logger;
    stopping: AbortSignal;
  },
): Promise<Serving> {
  const { config, seams, parts, readiness, tasks, metrics, log, stopping } = given;
  const { clock } = seams;
  if (config.mode.kind !== "shared") throw ztunnelError("ZTUNNEL_UNSUPPORTED", "pods are served in shared mode only");
  const { zdsSocket } = config.mode;
  const self =
    config.self === undefined
      ? undefined
      : stack.use(
          await PodProxy.start(
            // Nothing is captured here and no address is foreign: the process answers for itself.
            { ...parts, config: { ...parts.config, keepSource: "never", mark: 0 } },
            { uid: `self/${config.self.name}`, pod: config.self, network: seams.podNetwork(undefined), kinds: ["hbone"] },
          ),
        );
  const pods = stack.use(
    new Pods<PodProxy>({
      start: ({ uid, name, namespace }) => PodProxy.start(parts, { uid, pod: name, network: seams.podNetwork(namespace), kinds: capturedPod }),
      readiness,
      metrics,
      clock,
      log,
      tasks,
    }),
  );
  const ended = runZdsClient({ socketPath: zdsSocket, pods, clock, log: log.scope("zds"), random: parts.random }, { signal: stopping });
  const served = (): readonly PodProxy[] => pods.list().flatMap((pod) => (pod.kind === "up" ? [pod.served] : []));
  return { proxies: () => (self === undefined ? served() : [...served(), self]), pods: () => pods.list(), ended };
}

/** Contract 10: nothing new, wait for what lives, then end it. */
async function drain(proxies: readonly PodProxy[], { deadlineMs, clock, log }: { deadlineMs: number; clock: Clock; log: Logger }): Promise<void> {
  const deadline = new AbortController();
  using _timer = clock.schedule(deadlineMs, () => deadline.abort());
  log.info("draining", { connections: proxies.reduce((sum, { size }) => sum + size, 0), deadlineMs });
  await Promise.all(proxies.map((proxy) => proxy.drain({ signal: deadline.signal })));
  const remaining = proxies.reduce((sum, { size }) => sum + size, 0);
  if (remaining > 0) log.warn("the drain deadline passed; connections are ended by force", { connections: remaining });
  const reason = ztunnelError("ZTUNNEL_DRAIN_DEADLINE", "connection closed: this process is shutting down and its drain deadline passed");
  await Promise.all(proxies.map((proxy) => proxy.stop(reason)));
}

async function untilSynced(mesh: MeshView, signal: AbortSignal): Promise<void> {
  try {
    await mesh.synced.until((synced) => synced, { signal });
  } catch (thrown) {
    if (!signal.aborted) throw thrown;
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** What was asked for and would silently not happen is an error where safety depends on it, and a warning where it does not. */
function refuseTheUnsupported(config: Config, log: Logger): void {
  const asked = [
    config.crlPath === undefined ? undefined : "CRL_PATH",
    config.socks5Enabled ? "UNSTABLE_ENABLE_SOCKS5" : undefined,
    config.xds.onDemand ? "XDS_ON_DEMAND" : undefined,
    config.proxyEnabled ? undefined : "ENABLE_PROXY=false",
  ].filter((name) => name !== undefined);
  if (asked.length > 0) throw ztunnelError("ZTUNNEL_UNSUPPORTED", `this version does not support ${asked.join(", ")}; unset it`);
  if (config.dns.enabled) log.warn("this version has no DNS proxy; DNS of the pods must not be captured (set ISTIO_META_DNS_CAPTURE=false)");
  if (config.ca.fake) log.warn("FAKE_CA: certificates are self-signed by this process; for tests only");
  if (config.userTimeout) log.warn("USER_TIMEOUT_ENABLED has no effect in this version");
}
