/**
 * The whole ztunnel put together, in the order in which things start; they end in the reverse order. Everything long-lived is opened
 * here and nowhere else. This thread talks to the control plane, the node agent and the administrator; `traffic-threads.ts` carry the bytes.
 */
import { selfTest } from "@fairway/linux";
import { spiffeId } from "@fairway/model";
import { type CaClient, SecretManager } from "@fairway/pki";
import {
  type Clock,
  createRegistry,
  type LogFilter,
  type Logger,
  type MetricRegistry,
  mergedMetrics,
  messageOf,
  Profiler,
  Readiness,
  serveProxyAdmin,
  systemClock,
  TaskGroup,
} from "@fairway/runtime";
import type { MeshView } from "@fairway/xds";
import type { Config } from "./config.ts";
import { configDump } from "./config-dump.ts";
import { openCa, openMesh, readLocalMesh } from "./control-plane.ts";
import { PodDrain } from "./drain.ts";
import { ztunnelError } from "./failure.ts";
import { createProcessMetrics, type ProcessMetrics, registerCertificateMetrics } from "./metrics.ts";
import { podKinds, warnOfRisks } from "./offered.ts";
import { type PodState, Pods } from "./pods.ts";
import { prefetchCertificates } from "./prefetch.ts";
import { RevocationFile } from "./revocation-file.ts";
import type { PodConnections } from "./thread-protocol.ts";
import { type SpawnThread, spawnThread } from "./traffic-thread.ts";
import { type PodRequest, type ThreadedPod, TrafficThreads } from "./traffic-threads.ts";
import { version } from "./version.ts";
import { runZdsClient } from "./zds-client.ts";

/** Where this program meets the world; tests stand in for some of it. */
export interface Seams {
  readonly clock: Clock;
  readonly selfTest: () => Promise<void>;
  readonly openMesh: (config: Config, parts: { log: Logger; clock: Clock; registry: MetricRegistry }) => Promise<MeshView>;
  readonly openCa: (config: Config, parts: { clock: Clock }) => CaClient;
  readonly spawnThread: SpawnThread;
  readonly random: () => number;
}

export const realSeams: Seams = { clock: systemClock, selfTest, openMesh, openCa, spawnThread, random: Math.random };

export interface ZtunnelOptions {
  readonly config: Config;
  readonly log: Logger;
  readonly logFilter: LogFilter;
  /** Where the lines of the other threads go; stdout unless told. */
  readonly write?: (text: string, written: () => void) => void;
  /** Aborts when the process is to drain and end. */
  readonly stop: AbortSignal;
  readonly seams?: Seams;
}

/** What runs once the mesh is known. */
interface Serving {
  /** Every pod that is served now. */
  readonly served: () => readonly ThreadedPod[];
  /** For the dump. */
  readonly pods: () => readonly PodState<ThreadedPod>[];
  /** Serves no pod that it does not serve already. */
  readonly refuseMore: () => Promise<void>;
  /** Rejects when serving became impossible. Resolves when it was told to end. */
  readonly ended: Promise<void>;
}

/** Runs until `stop`, then drains. Throws when it cannot start, when the node agent speaks another protocol, or when a thread died. */
export async function runZtunnel({ config, log, logFilter, stop, write = toStdout, seams = realSeams }: ZtunnelOptions): Promise<void> {
  const { clock } = seams;
  warnOfRisks(config, log);
  const quit = new AbortController();
  const stopping = AbortSignal.any([stop, quit.signal]);
  if (config.mode.kind === "shared") await seams.selfTest();

  await using stack = new AsyncDisposableStack();
  const registry = createRegistry();
  const metrics = createProcessMetrics(registry, config.meshVersion);
  const readiness = new Readiness();
  const meshBlocker = readiness.block("state manager");
  const proxyBlocker = readiness.block("proxy");

  const mesh = stack.use(await seams.openMesh(config, { log, clock, registry }));
  const ca = stack.use(seams.openCa(config, { clock }));
  const certificates = stack.use(new SecretManager({ ca, clock, log, ttlMs: config.ca.certificateTtlMs }));
  registerCertificateMetrics(registry, () => certificates.states.current.values());
  const tasks = stack.use(new TaskGroup(log));
  const revocations = config.crlPath === undefined ? undefined : stack.use(await RevocationFile.open({ path: config.crlPath, clock, log }));
  const threads = stack.use(
    await TrafficThreads.start({
      count: threadsFor(config),
      settings: {
        config: config.proxy,
        tls: { allowTls12: config.tls12, postQuantumOnly: config.postQuantumOnly },
        logFormat: config.logFormat,
      },
      mesh,
      certificates,
      revocations: revocations?.lists,
      logFilter,
      log,
      clock,
      write,
      spawn: seams.spawnThread,
    }),
  );

  let pods: Serving["pods"] = () => [];
  let draining: PodDrain | undefined;
  const profiler = new Profiler(clock);
  stack.use(
    await serveProxyAdmin({
      name: "ztunnel",
      ports: config.proxy.ports,
      ipv6: config.ipv6,
      metrics: mergedMetrics(registry, () => threads.metrics()),
      readiness,
      logFilter,
      onLogFilter: () => threads.followLogFilter(),
      dump: async () =>
        configDump({
          config,
          snapshot: mesh.snapshot,
          // As the reference does: read again for each dump, not kept for it.
          local: await readLocalMesh(config).catch((thrown: unknown) => {
            log.error("the local mesh cannot be read for the dump", { error: messageOf(thrown) });
            return {};
          }),
          certificates: certificates.states.current,
          pods: await withConnections(pods()),
          version,
          drain: await draining?.describe(),
        }),
      quit: () => quit.abort(ztunnelError("ZTUNNEL_POD_STOPPED", "told to quit")),
      profiles: {
        count: () => threads.count,
        take: (thread, request) => (thread === 0 ? profiler.take(request, { signal: tasks.signal }) : threads.profile(thread, request)),
      },
    }),
  );

  // In shared mode no pod is served before the mesh is known; a dedicated one binds its ports at once and lets connections wait.
  const dedicated = config.mode.kind === "dedicated" ? await startOwn(stack, threads, { pod: config.mode.pod, kinds: podKinds(config) }) : undefined;
  await Promise.race([untilSynced(mesh, stopping), threads.alive]);
  meshBlocker[Symbol.dispose]();
  proxyBlocker[Symbol.dispose]();
  if (stopping.aborted) return;
  const own = config.self === undefined ? [] : [spiffeId({ ...config.self, trustDomain: config.trustDomain })];
  if (config.mode.kind === "shared" && config.proxy.nodeName !== undefined) {
    stack.use(prefetchCertificates({ mesh, certificates, node: config.proxy.nodeName, pinned: own }));
  }
  const serving = dedicated ?? (await servePods(stack, { config, seams, threads, readiness, tasks, metrics, log, stopping }));
  pods = serving.pods;
  log.info("ready for connections", { mode: config.mode.kind, threads: threads.count });
  await Promise.race([serving.ended, aborted(stopping), threads.alive]);
  await serving.refuseMore();
  draining = new PodDrain(serving.served(), { threads, deadlineMs: config.drainDeadlineMs, clock, log });
  await Promise.race([draining.run(), threads.alive]);
}

/** Threads share the ports of a pod, which they may only do when ports may be shared at all. */
function threadsFor({ workerThreads, proxy }: Config): number {
  return proxy.reusePort ? workerThreads : 1;
}

/** Dedicated mode: this process's own network is the pod's. */
async function startOwn(stack: AsyncDisposableStack, threads: TrafficThreads, own: Pick<PodRequest, "pod" | "kinds">): Promise<Serving> {
  const { pod, kinds } = own;
  const served = stack.use(await threads.startPod({ uid: `${pod.namespace}/${pod.name}`, pod, namespace: undefined, kinds }));
  return { served: () => [served], pods: () => [], refuseMore: async () => {}, ended: new Promise(() => {}) };
}

/** Shared mode: the pods that the node agent names, and this process's own port 15008 (contract 5B.5). */
async function servePods(
  stack: AsyncDisposableStack,
  given: {
    config: Config;
    seams: Seams;
    threads: TrafficThreads;
    readiness: Readiness;
    tasks: TaskGroup;
    metrics: ProcessMetrics;
    log: Logger;
    stopping: AbortSignal;
  },
): Promise<Serving> {
  const { config, seams, threads, readiness, tasks, metrics, log, stopping } = given;
  const { clock, random } = seams;
  if (config.mode.kind !== "shared") throw ztunnelError("ZTUNNEL_UNSUPPORTED", "pods are served in shared mode only");
  const { zdsSocket } = config.mode;
  // First of all: it blocks readiness from now until every pod of the snapshot is served. An old process is told to leave when this one is ready.
  const pods = stack.use(
    new Pods<ThreadedPod>({
      start: async ({ uid, name, namespace }) => {
        const served = await threads.startPod({ uid, pod: name, namespace, kinds: podKinds(config) });
        // Every thread has a descriptor of its own.
        namespace[Symbol.dispose]();
        return served;
      },
      readiness,
      metrics,
      clock,
      log,
      tasks,
    }),
  );
  const self =
    config.self === undefined || !config.proxyEnabled
      ? undefined
      : stack.use(
          await threads.startPod({
            uid: `self/${config.self.name}`,
            pod: config.self,
            namespace: undefined,
            kinds: ["hbone"],
            // Nothing is captured here and no address is foreign: the process answers for itself.
            overrides: { keepSource: "never", mark: 0 },
          }),
        );
  const gone = new AbortController();
  const ended = runZdsClient({ socketPath: zdsSocket, pods, clock, log: log.scope("zds"), random }, { signal: gone.signal, leaving: stopping });
  stack.defer(async () => {
    gone.abort(ztunnelError("ZTUNNEL_POD_STOPPED", "this process is shutting down"));
    await ended.catch(() => {});
  });
  const served = (): readonly ThreadedPod[] => pods.list().flatMap((pod) => (pod.kind === "up" ? [pod.served] : []));
  return { served: () => (self === undefined ? served() : [...served(), self]), pods: () => pods.list(), refuseMore: () => pods.refuseMore(), ended };
}

function withConnections(pods: readonly PodState<ThreadedPod>[]): Promise<readonly PodState<PodConnections>[]> {
  return Promise.all(pods.map(async (pod) => (pod.kind === "up" ? { ...pod, served: await pod.served.connections() } : pod)));
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

function toStdout(text: string, written: () => void): void {
  // Called also when it failed: a reader that is gone must not stop a thread's log.
  process.stdout.write(text, () => written());
}
