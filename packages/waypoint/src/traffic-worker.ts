/**
 * The work of one thread that carries traffic: its own event loop, listener, tunnels, balancers and breakers. What it serves, what it knows of
 * the mesh and its certificate come from the main thread; towards the control plane it opens nothing.
 */
import { randomBytes } from "node:crypto";
import type { MessagePort } from "node:worker_threads";
import { createHboneMetrics } from "@fairway/hbone";
import { applyChange, emptySnapshot, type SpiffeId, type WaypointConfig } from "@fairway/model";
import { attachCertificate, createMeshTls, type WorkloadCertificate } from "@fairway/pki";
import {
  assertNever,
  type CalledThread,
  type Clock,
  createLogger,
  createRegistry,
  LineSender,
  LogFilter,
  type MetricRegistry,
  readMetrics,
  serveCalls,
  TaskGroup,
  type ThreadCall,
  Watched,
} from "@fairway/runtime";
import { applyWaypointResources, emptyWaypointState, type MeshChange, type WaypointResources } from "@fairway/xds";
import { AccessLog } from "./access-log.ts";
import { dumpCluster } from "./config-dump.ts";
import { createProxyTelemetry } from "./proxy-telemetry.ts";
import { postDocument, SpanExporter } from "./span-exporter.ts";
import type { ThreadCalls, ThreadNews, ThreadSettings, ThreadSpeech } from "./thread-protocol.ts";
import { fetchDocument, TokenKeys } from "./token-keys.ts";
import { createTokenVerifier } from "./token-verifier.ts";
import { createTracer } from "./tracer.ts";
import { ScrapedCounter } from "./traffic-series.ts";
import { version } from "./version.ts";
import { type Codecs, WaypointProxy } from "./waypoint-proxy.ts";

export interface TrafficWorkerOptions {
  readonly port: MessagePort;
  readonly settings: ThreadSettings;
  readonly clock: Clock;
  readonly codecs: Codecs;
}

/** Serves until the port closes. */
export function runTrafficWorker(options: TrafficWorkerOptions): AsyncDisposable {
  const worker = new TrafficWorker(options);
  serveCalls<ThreadCalls, ThreadNews>(options.port, worker, "WAYPOINT_INTERNAL");
  return worker;
}

class TrafficWorker implements CalledThread<ThreadCall<ThreadCalls>, ThreadNews>, AsyncDisposable {
  readonly #port: MessagePort;
  readonly #registry: MetricRegistry = createRegistry();
  readonly #filter: LogFilter;
  readonly #lines: LineSender;
  readonly #accessLog: AccessLog;
  readonly #exporter: SpanExporter;
  readonly tasks: TaskGroup;
  readonly #config = new Watched<WaypointConfig>(emptyWaypointState.config);
  readonly #synced = new Watched(false);
  readonly #mesh = new Watched<MeshChange>({ snapshot: emptySnapshot, policiesChanged: false, workloadsChanged: false });
  readonly #certificate = new Watched<WorkloadCertificate | undefined>(undefined);
  readonly #proxy: WaypointProxy;
  #state = emptyWaypointState;

  constructor({ port, settings, clock, codecs }: TrafficWorkerOptions) {
    const { config } = settings;
    this.#port = port;
    this.#filter = new LogFilter(settings.logFilter);
    this.#lines = new LineSender((text) => this.#say({ kind: "lines", text }));
    const log = createLogger("waypoint", { format: settings.logFormat, filter: this.#filter, write: this.#lines.write });
    this.tasks = new TaskGroup(log);
    this.#accessLog = new AccessLog({ format: config.accessLog, write: this.#lines.write, clock });
    this.#exporter = new SpanExporter({
      config: config.tracing,
      resource: { "service.namespace": config.namespace, "service.version": version.version },
      post: postDocument,
      clock,
      log,
      tasks: this.tasks,
    });
    registerExporter(this.#registry, this.#exporter);
    const snapshot = (): MeshChange["snapshot"] => this.#mesh.current.snapshot;
    const mesh = this.#mesh;
    this.#proxy = new WaypointProxy({
      config,
      waypoint: { config: this.#config, synced: this.#synced },
      mesh: {
        changes: mesh,
        get snapshot() {
          return mesh.current.snapshot;
        },
      },
      certificates: { fetch: (identity, { signal }) => this.#fetchCertificate(identity, clock, signal) },
      tls: createMeshTls({ clock }),
      codecs,
      telemetry: createProxyTelemetry({
        registry: this.#registry,
        accessLog: this.#accessLog,
        clock,
        log,
        config,
        snapshot,
        waypoint: () => this.#config.current,
      }),
      tracer: createTracer({ config: config.tracing, clock, random: Math.random, randomBytes, onSpan: this.#exporter.take }),
      tokens: createTokenVerifier({ keys: new TokenKeys({ fetchText: fetchDocument, clock, log }), clock }),
      tunnelMetrics: createHboneMetrics(this.#registry),
      clock,
      log,
      random: Math.random,
    });
  }

  hear(news: ThreadNews): void {
    switch (news.kind) {
      case "resources":
        this.#apply(news.change);
        break;
      case "mesh":
        this.#mesh.set({ snapshot: applyChange(this.#mesh.current.snapshot, news.change), policiesChanged: false, workloadsChanged: true });
        break;
      case "synced":
        this.#synced.set(news.synced);
        break;
      case "certificate":
        this.#certificate.set(news.parts === undefined ? undefined : attachCertificate(news.parts));
        break;
      case "log-filter":
        this.#filter.replace(news.expression);
        break;
      case "lines-written":
        this.#lines.written();
        break;
      default:
        assertNever(news);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#proxy[Symbol.asyncDispose]();
    await this.tasks[Symbol.asyncDispose]();
  }

  #apply(change: WaypointResources): void {
    // What the main thread accepted is read here by the same rules; a refusal would be named there.
    this.#state = applyWaypointResources(this.#state, change).state;
    this.#config.set(this.#state.config);
  }

  async carryOut(call: ThreadCall<ThreadCalls>): Promise<unknown> {
    switch (call.name) {
      case "listen":
        return this.#proxy.listen();
      case "drain":
        return this.#proxy.drain({ signal: this.tasks.signal });
      case "active":
        return this.#proxy.active;
      case "metrics":
        return readMetrics(this.#registry);
      case "clusters":
        return [...this.#proxy.clusters()].map(dumpCluster);
      case "flush":
        this.#accessLog.flush();
        this.#lines.flushNow();
        await this.#exporter.flush();
        return undefined;
      default:
        return assertNever(call);
    }
  }

  /** Waits for the main thread's; one that has expired is nobody's proof. */
  async #fetchCertificate(_: SpiffeId, clock: Clock, signal: AbortSignal): Promise<WorkloadCertificate> {
    const isValid = (certificate: WorkloadCertificate | undefined): certificate is WorkloadCertificate =>
      certificate !== undefined && certificate.notAfter > clock.now();
    const held = this.#certificate.current;
    if (isValid(held)) return held;
    const patience = AbortSignal.any([signal, AbortSignal.timeout(certificateWaitMs)]);
    const came = await this.#certificate.until(isValid, { signal: patience });
    if (came === undefined) throw new Error("there is no certificate");
    return came;
  }

  /** A channel that is closed swallows what is said: the process is ending then. */
  #say(speech: ThreadSpeech): void {
    this.#port.postMessage(speech);
  }
}

const certificateWaitMs = 10_000;

function registerExporter(registry: MetricRegistry, exporter: SpanExporter): void {
  new ScrapedCounter(registry, "fairway_waypoint_spans_exported_total", "Spans taken by the collector", [], () => [{ labels: {}, value: exporter.exported }]);
  new ScrapedCounter(registry, "fairway_waypoint_spans_dropped_total", "Spans nobody took", [], () => [{ labels: {}, value: exporter.dropped }]);
}
