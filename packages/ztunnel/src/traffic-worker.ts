/**
 * The work of one thread that carries traffic: its own event loop, its own listeners in every pod, its own tunnels. What it knows of the mesh
 * and every certificate it uses comes from the main thread; it opens nothing towards the control plane.
 */
import { randomBytes } from "node:crypto";
import type { MessagePort } from "node:worker_threads";
import { createHboneMetrics, tunnelEngine } from "@fairway/hbone";
import { type NetworkNamespace, openNamespace, type PodNetwork } from "@fairway/linux";
import { createMeshTls, postQuantumGroup } from "@fairway/pki";
import {
  assertNever,
  type CalledThread,
  type Clock,
  createLogger,
  createRegistry,
  fromPlainError,
  LineSender,
  LogFilter,
  type MetricRegistry,
  Profiler,
  readMetrics,
  serveCalls,
  TaskGroup,
  type ThreadCall,
} from "@fairway/runtime";
import { AccessLog } from "./access-log.ts";
import { HandedCertificates } from "./handed-certificates.ts";
import { IdleTunnels } from "./idle-tunnels.ts";
import { AskedNames } from "./mesh-names.ts";
import { createZtunnelMetrics } from "./metrics.ts";
import { systemLookup } from "./next-hop.ts";
import { PodProxy, type PodProxyParts } from "./pod-proxy.ts";
import { Revocation } from "./revocation.ts";
import type { PodOrder, ThreadCalls, ThreadNews, ThreadSettings, ThreadSpeech } from "./thread-protocol.ts";
import { WorkingSet } from "./working-set.ts";

export interface TrafficWorkerOptions {
  readonly port: MessagePort;
  readonly settings: ThreadSettings;
  readonly clock: Clock;
  readonly podNetwork: (namespace: NetworkNamespace | undefined) => PodNetwork;
}

/** Serves until the port closes. */
export function runTrafficWorker(options: TrafficWorkerOptions): void {
  serveCalls<ThreadCalls, ThreadNews>(options.port, new TrafficWorker(options), "ZTUNNEL_THREAD_FAILED");
}

class TrafficWorker implements CalledThread<ThreadCall<ThreadCalls>, ThreadNews> {
  readonly #options: TrafficWorkerOptions;
  readonly #registry: MetricRegistry = createRegistry();
  readonly #filter: LogFilter;
  readonly #lines: LineSender;
  readonly #mesh: WorkingSet;
  readonly #names: AskedNames;
  readonly #certificates: HandedCertificates;
  readonly #revocation: Revocation | undefined;
  readonly #parts: PodProxyParts;
  readonly tasks: TaskGroup;
  readonly #profiler: Profiler;
  readonly #proxies = new Map<number, PodProxy>();

  constructor(options: TrafficWorkerOptions) {
    const { settings, clock } = options;
    const { config, tls, revocations } = settings;
    this.#options = options;
    this.#filter = new LogFilter(settings.logFilter);
    this.#lines = new LineSender((text) => this.#say({ kind: "lines", text }));
    const log = createLogger("ztunnel", { format: settings.logFormat, filter: this.#filter, write: this.#lines.write });
    this.tasks = new TaskGroup(log);
    this.#profiler = new Profiler(clock);
    this.#mesh = new WorkingSet({
      ask: (question) => this.#say({ kind: "ask-mesh", question }),
      forget: (keys) => this.#say({ kind: "forget-mesh", keys }),
      nodeName: config.nodeName,
      clock,
      onDemand: config.onDemand,
    });
    this.#names = new AskedNames({ ask: (id, request) => this.#say({ kind: "ask-name", id, request }), clock });
    this.#certificates = new HandedCertificates({ ask: (identity) => this.#say({ kind: "ask-certificate", identity }), clock });
    const metrics = createZtunnelMetrics(this.#registry);
    this.#revocation = revocations === undefined ? undefined : new Revocation({ lists: revocations, metrics });
    this.#parts = {
      config,
      mesh: this.#mesh,
      names: this.#names,
      certificates: this.#certificates,
      tls: createMeshTls({
        clock,
        allowTls12: tls.allowTls12,
        ...(tls.postQuantumOnly ? { groups: postQuantumGroup } : {}),
        ...(this.#revocation === undefined ? {} : { isRevoked: this.#revocation.isRevoked }),
      }),
      revocation: this.#revocation,
      engine: tunnelEngine(config.engine),
      idleTunnels: new IdleTunnels({ clock, limits: config, metrics }),
      tunnelMetrics: createHboneMetrics(this.#registry),
      metrics,
      accessLog: new AccessLog(log),
      clock,
      log,
      random: Math.random,
      randomBytes,
      lookup: systemLookup,
    };
  }

  hear(news: ThreadNews): void {
    switch (news.kind) {
      case "mesh":
        this.#mesh.apply(news.update);
        break;
      case "name":
        this.#names.settle(news.id, news.answer);
        break;
      case "certificate":
        this.#certificates.apply(news.news);
        break;
      case "revocations":
        this.#revocation?.replace(news.lists);
        break;
      case "log-filter":
        this.#filter.replace(news.expression);
        break;
      case "lines-written": {
        const dropped = this.#lines.written();
        if (dropped > 0) this.#parts.log.warn("log lines were dropped: they came faster than they were written", { lines: dropped });
        break;
      }
      default:
        assertNever(news);
    }
  }

  async carryOut(call: ThreadCall<ThreadCalls>): Promise<unknown> {
    switch (call.name) {
      case "start":
        return this.#start(call.ask);
      case "stop": {
        const proxy = this.#proxies.get(call.ask.proxy);
        this.#proxies.delete(call.ask.proxy);
        return proxy?.stop(fromPlainError(call.ask.reason));
      }
      case "drain":
        return this.#proxies.get(call.ask.proxy)?.drain({ signal: this.tasks.signal });
      case "connections":
        return this.#proxies.get(call.ask.proxy)?.connections() ?? { inbound: [], outbound: [] };
      case "sizes":
        return new Map([...this.#proxies].map(([proxy, { size }]) => [proxy, size]));
      case "metrics":
        return readMetrics(this.#registry);
      case "profile":
        return this.#profiler.take(call.ask, { signal: this.tasks.signal });
      case "flush":
        return this.#lines.flushNow();
      default:
        return assertNever(call);
    }
  }

  async #start({ proxy, uid, pod, namespaceFd, kinds, overrides }: PodOrder): Promise<void> {
    // A descriptor of this thread's own: the main thread closes its one when it pleases.
    const namespace = namespaceFd === undefined ? undefined : openNamespace(`/proc/self/fd/${namespaceFd}`);
    let started: PodProxy;
    try {
      const parts = { ...this.#parts, config: { ...this.#parts.config, ...overrides } };
      started = await PodProxy.start(parts, { uid, pod, network: this.#options.podNetwork(namespace), kinds });
    } catch (thrown) {
      namespace?.[Symbol.dispose]();
      throw thrown;
    }
    this.#proxies.set(proxy, started);
  }

  /** A channel that is closed swallows what is said: the process is ending then. */
  #say(speech: ThreadSpeech): void {
    this.#options.port.postMessage(speech);
  }
}
