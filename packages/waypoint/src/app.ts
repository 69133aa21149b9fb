/**
 * The whole waypoint put together, in the order in which things start; they end in the reverse order. Everything long-lived is opened here and
 * nowhere else. This thread talks to the control plane and the administrator; `traffic-threads.ts` carry the requests.
 */
import { type CaClient, SecretManager } from "@fairway/pki";
import {
  type Clock,
  createRegistry,
  Gauge,
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
import type { WaypointView } from "@fairway/xds";
import type { Config } from "./config.ts";
import { configDump } from "./config-dump.ts";
import { openCa, openWaypoint } from "./control-plane.ts";
import { waypointError } from "./failure.ts";
import { type SpawnThread, spawnThread } from "./traffic-thread.ts";
import { TrafficThreads } from "./traffic-threads.ts";
import { version } from "./version.ts";

/** Where this program meets the world; tests stand in for some of it. */
export interface Seams {
  readonly clock: Clock;
  readonly openWaypoint: (config: Config, parts: { log: Logger; clock: Clock; registry: MetricRegistry }) => WaypointView;
  readonly openCa: (config: Config) => CaClient;
  readonly spawnThread: SpawnThread;
}

export const realSeams: Seams = { clock: systemClock, openWaypoint, openCa, spawnThread };

export interface WaypointOptions {
  readonly config: Config;
  readonly log: Logger;
  readonly logFilter: LogFilter;
  /** Where the lines of the other threads go; stdout unless told. */
  readonly write?: (text: string) => void;
  /** Aborts when the process is to drain and end. */
  readonly stop: AbortSignal;
  readonly seams?: Seams;
}

/** Between two tries for the first certificate that failed. */
const certificateRetryMs = 1_000;

/** Runs until `stop`, then drains. Throws when it cannot start, or when a thread died. */
export async function runWaypoint({ config, log, logFilter, stop, write = toStdout, seams = realSeams }: WaypointOptions): Promise<void> {
  const { clock } = seams;
  const quit = new AbortController();
  const stopping = AbortSignal.any([stop, quit.signal]);

  await using stack = new AsyncDisposableStack();
  const registry = createRegistry();
  registerProcess(registry, config.meshVersion);
  const readiness = new Readiness();
  const blockers = { configuration: readiness.block("configuration"), certificate: readiness.block("certificate"), listener: readiness.block("listener") };

  const view = stack.use(seams.openWaypoint(config, { log, clock, registry }));
  const ca = stack.use(seams.openCa(config));
  const certificates = stack.use(new SecretManager({ ca, clock, log, ttlMs: config.ca.certificateTtlMs }));
  const tasks = stack.use(new TaskGroup(log));
  const profiler = new Profiler(clock);
  const threads = stack.use(
    await TrafficThreads.start({
      count: config.workerThreads,
      config: config.proxy,
      logFormat: config.logFormat,
      view,
      certificates,
      logFilter,
      log,
      clock,
      write,
      spawn: seams.spawnThread,
    }),
  );
  stack.use(
    await serveProxyAdmin({
      name: "waypoint",
      ports: config.ports,
      ipv6: config.ipv6,
      metrics: mergedMetrics(registry, () => threads.metrics()),
      readiness,
      logFilter,
      onLogFilter: () => threads.followLogFilter(),
      dump: async () =>
        configDump({
          config,
          waypoint: view.changes.current,
          synced: view.synced.current,
          certificates: certificates.states.current,
          threads: await threads.clusters(),
          version,
        }),
      quit: () => quit.abort(waypointError("WAYPOINT_STOPPED", "told to quit")),
      // Of this thread only.
      profiles: { count: () => 0, take: (_, request) => profiler.take(request, { signal: tasks.signal }) },
    }),
  );

  const serve = async (): Promise<void> => {
    await firstCertificate(certificates, config, { clock, log, signal: stopping });
    blockers.certificate[Symbol.dispose]();
    await view.synced.until((synced) => synced, { signal: stopping });
    blockers.configuration[Symbol.dispose]();
    await threads.listen();
    blockers.listener[Symbol.dispose]();
    log.info("ready for tunnels", { gateway: config.proxy.gateway, threads: config.workerThreads });
    await aborted(stopping);
  };
  try {
    await Promise.race([serve(), threads.alive]);
  } catch (thrown) {
    if (!stopping.aborted) throw thrown;
  }
  // Whoever looks at readiness sends nobody here any more.
  readiness.block("draining");
  await drain(threads, { deadlineMs: config.drainDeadlineMs, clock, log });
}

/** Without it nothing can be served; until the CA gives it, it is asked again. */
async function firstCertificate(
  certificates: SecretManager,
  { proxy }: Config,
  { clock, log, signal }: { clock: Clock; log: Logger; signal: AbortSignal },
): Promise<void> {
  for (;;) {
    try {
      await certificates.fetch(proxy.identity, { signal, priority: "realtime" });
      return;
    } catch (thrown) {
      signal.throwIfAborted();
      log.warn("there is no certificate yet", { identity: proxy.identity, error: messageOf(thrown) });
      await clock.sleep(certificateRetryMs, { signal });
    }
  }
}

/** Nothing new, wait for what lives, then end it. */
async function drain(threads: TrafficThreads, { deadlineMs, clock, log }: { deadlineMs: number; clock: Clock; log: Logger }): Promise<void> {
  const deadline = new AbortController();
  using _timer = clock.schedule(deadlineMs, () => deadline.abort());
  log.info("draining", { deadlineMs });
  await threads.drain({ signal: deadline.signal });
  const remaining = await threads.active().catch(() => 0);
  if (remaining > 0) log.warn("the drain deadline passed; requests are ended by force", { requests: remaining });
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

function registerProcess(registry: MetricRegistry, meshVersion: string): void {
  const registers = [registry];
  new Gauge({ name: "istio_build", help: "What runs here", labelNames: ["component", "tag"], registers }).set({ component: "waypoint", tag: meshVersion }, 1);
  const memory: Gauge = new Gauge({
    name: "process_resident_memory_bytes",
    help: "Resident memory",
    registers,
    collect: () => memory.set(process.memoryUsage.rss()),
  });
}

function toStdout(text: string): void {
  process.stdout.write(text);
}
