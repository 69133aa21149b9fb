/**
 * The controller, composed in the open: first everything is made, then it runs. Nothing is served before all inputs are in sync
 * (controller contract 11). Every replica serves discovery and certificates; one, the leader, writes.
 */
import { networkInterfaces } from "node:os";
import { type Collection, electLeader, index, type KubeClient } from "@fairway/kube";
import { AggregatedDiscoveryServiceService, IstioCertificateServiceService } from "@fairway/protocol";
import {
  type AdminHandler,
  type Clock,
  type Logger,
  MeshError,
  type MetricRegistry,
  messageOf,
  metricsRoutes,
  Readiness,
  serveAdmin,
  TaskGroup,
  type Watch,
  Watched,
} from "@fairway/runtime";
import { createXdsServer } from "@fairway/xds";
import { CaStore } from "./ca-store.ts";
import { CallerReview } from "./callers.ts";
import { logComplaints } from "./complaints.ts";
import type { Config } from "./config.ts";
import { debugRoutes } from "./debug.ts";
import { discoveryAuthorizer } from "./discovery.ts";
import { countDiscovery, joinClients } from "./discovery-clients.ts";
import { bindGrpc, createGrpcServer } from "./grpc-server.ts";
import { type Inputs, inputNames, openInputs } from "./inputs.ts";
import { deriveMesh, type Mesh } from "./mesh.ts";
import { type ControllerMetrics, createControllerMetrics } from "./metrics.ts";
import type { NodeFacts } from "./node-authorization.ts";
import { type ProxylessServer, serveProxyless } from "./proxyless-server.ts";
import { publish } from "./publish.ts";
import { followRejections } from "./rejections.ts";
import { distributeRoots } from "./root-distribution.ts";
import { serverNames, serveWith } from "./serving.ts";
import { Signing } from "./sign.ts";
import { writeStatus } from "./status.ts";
import { untilAborted } from "./until-aborted.ts";
import { runWaypoints } from "./waypoint-deployer.ts";
import { WaypointPublication } from "./waypoint-publication.ts";

export interface ControllerOptions {
  readonly config: Config;
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Logger;
  readonly registry: MetricRegistry;
  /** Where the gRPC, readiness and metrics ports bind; every address of this machine unless a test says otherwise. */
  readonly host?: string;
}

export interface Controller extends AsyncDisposable {
  /** The ports that were really bound. */
  readonly ports: {
    readonly grpc: number;
    readonly ready: number;
    readonly metrics: number;
    readonly debug: number;
    /** Undefined when proxyless gRPC clients are not served. */
    readonly proxyless: number | undefined;
  };
}

const leaseName = "fairway-controller-leader";
const openRetryMs = 1_000;
const secondMs = 1_000;

/** Starts everything and returns when proxies are served. Throws what cannot be waited away (a bad CA, a port in use); waits for an API server that is away. */
export async function startController(options: ControllerOptions, signal: AbortSignal): Promise<Controller> {
  const { config, client, clock, registry, host = anyAddress() } = options;
  const log = options.log.scope("controller");
  const { settings } = config;
  const metrics = createControllerMetrics(registry, clock);
  const readiness = new Readiness();
  const starting = readiness.block("serving proxies");
  await using opening = new AsyncDisposableStack();

  const readyServer = opening.use(await serveAdmin({ host, port: config.ports.ready }, new Map([["/ready", readyRoute(readiness)]])));
  const metricsServer = opening.use(await serveAdmin({ host, port: config.ports.metrics }, metricsRoutes(registry)));
  const inputs = opening.use(openInputs(client));
  const withoutCa = readiness.block("certificate authority");
  const ca = opening.use(await openCa(options, signal));
  withoutCa[Symbol.dispose]();
  await inputsInSync(inputs, readiness, signal);
  signal.throwIfAborted();

  const mesh = deriveMesh(inputs, settings);
  opening.use(logComplaints(mesh, log.scope("policy")));
  const waypoints = opening.use(new WaypointPublication({ resources: mesh.programs.resources, log, metrics }));
  const publication = opening.use(publish({ mesh, waypoints, log, metrics }));
  const callers = new CallerReview({ client, audiences: config.tokenAudiences, clock });
  const facts = nodeFacts(inputs, config);
  const xds = opening.use(
    createXdsServer({
      openScope: (scope) => publication.openScope(scope),
      authorize: discoveryAuthorizer(callers, facts),
      clock,
      log: log.scope("xds"),
      ready: new Watched(true),
      observer: countDiscovery(metrics),
    }),
  );
  const proxyless = opening.use(await openProxyless({ ...options, log, host }, { inputs, mesh, metrics }));
  const { clients } = proxyless === null ? xds : opening.use(joinClients(xds.clients, proxyless.clients, "grpc-"));
  const { rejections } = opening.use(followRejections(clients, { log, metrics }));
  const signing = new Signing({
    authority: () => ca.authority.current,
    callers,
    facts,
    defaultTtlMs: config.defaultCertificateTtlMs,
    maxTtlMs: config.maxCertificateTtlMs,
    clock,
    log: log.scope("ca"),
    metrics,
  });
  const rootBundle = opening.use(followRoot(ca, metrics.rootExpiry));
  const names = serverNames(settings.rootNamespace, settings.clusterDomain, config.extraServerNames);
  const serving = opening.use(serveWith({ authority: ca.authority, dnsNames: names, clock, log }));
  const grpc = createGrpcServer();
  grpc.addService(AggregatedDiscoveryServiceService, xds.service);
  grpc.addService(IstioCertificateServiceService, signing.service);
  const grpcPort = await bindGrpc(grpc, { host, port: config.ports.grpc }, serving.credentials);
  opening.defer(() => grpc.forceShutdown());
  const debugServer = opening.use(await serveAdmin({ host: "127.0.0.1", port: config.ports.debug }, debugRoutes({ clients, mesh })));

  const tasks = opening.use(new TaskGroup(log));
  tasks.run("leader election", (ending) =>
    electLeader({
      client,
      namespace: settings.rootNamespace,
      lease: leaseName,
      identity: config.podName,
      clock,
      log,
      signal: ending,
      lead: async (leading) => {
        await Promise.all([
          ca.rotate(leading),
          distributeRoots({ client, namespaces: inputs.namespaces, rootBundle: rootBundle.bundle, clock, log }, leading),
          runWaypoints({ client, inputs, settings, pod: config.waypointPod, clock, log: log.scope("waypoint") }, leading),
          writeStatus({ client, inputs, mesh, rejections, rootNamespace: settings.rootNamespace, clock, log }, leading),
        ]);
      },
    }),
  );
  starting[Symbol.dispose]();
  log.info("serving", { grpc: grpcPort, workloads: count(mesh.workloads), services: count(mesh.services), policies: count(mesh.policies) });
  const stack = opening.move();
  return {
    ports: { grpc: grpcPort, ready: readyServer.port, metrics: metricsServer.port, debug: debugServer.port, proxyless: proxyless?.port },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** An API server that is away is waited for; a CA that cannot be used is not. */
async function openCa({ config, client, clock, log }: ControllerOptions, signal: AbortSignal): Promise<CaStore> {
  const { rootNamespace: namespace, trustDomain } = config.settings;
  for (;;) {
    try {
      return await CaStore.open({ client, namespace, trustDomain, clock, log: log.scope("ca") }, { signal });
    } catch (thrown) {
      const error = MeshError.from(thrown, "CONTROLLER_CA_FAILED");
      if (!error.code.startsWith("KUBE_") || signal.aborted) throw thrown;
      log.warn("the CA's Secret cannot be read yet", { error: messageOf(error) });
      await clock.sleep(openRetryMs, { signal });
    }
  }
}

/** Null when no port is configured. */
async function openProxyless(
  { config, clock, log, host }: ControllerOptions & { readonly host: string },
  { inputs, mesh, metrics }: { readonly inputs: Inputs; readonly mesh: Mesh; readonly metrics: ControllerMetrics },
): Promise<ProxylessServer | null> {
  const { settings, ports } = config;
  if (ports.proxyless === undefined) return null;
  const server = await serveProxyless({
    host,
    port: ports.proxyless,
    inputs,
    mesh,
    settings,
    observer: countDiscovery(metrics),
    clock,
    log: log.scope("proxyless"),
  });
  log.info("serving proxyless gRPC clients", { port: server.port });
  return server;
}

/** Not ready until every input had its first list; readiness names those that had not. */
async function inputsInSync(inputs: Inputs, readiness: Readiness, signal: AbortSignal): Promise<void> {
  const waiting = inputNames().map(async (name) => {
    using _block = readiness.block(name);
    await inputs[name].synced;
  });
  await untilAborted(
    Promise.all(waiting).then(() => undefined),
    signal,
  );
}

function nodeFacts(inputs: Inputs, { settings, trustedNodeAccounts }: Config): NodeFacts {
  const byAccount = index(inputs.pods, ({ metadata, spec }) => [
    accountOnNode(spec?.nodeName ?? "", metadata.namespace ?? "", spec?.serviceAccountName ?? "default"),
  ]);
  return {
    pod: (namespace, name) => inputs.pods.get(`${namespace}/${name}`),
    podsOf: (node, namespace, serviceAccount) => byAccount.lookup(accountOnNode(node, namespace, serviceAccount)),
    namespace: (name) => inputs.namespaces.get(name),
    gateway: (namespace, name) => inputs.gateways.get(`${namespace}/${name}`),
    trustDomain: settings.trustDomain,
    trustedNodeAccounts,
  };
}

function accountOnNode(node: string, namespace: string, serviceAccount: string): string {
  return `${node}/${namespace}/${serviceAccount}`;
}

/** The root bundle as text, and when the chain ends as a metric. */
function followRoot({ authority }: CaStore, expiry: { set(value: number): void }): { bundle: Watch<string> } & Disposable {
  const bundle = new Watched(authority.current.rootBundle);
  expiry.set(authority.current.notAfter / secondMs);
  const subscription = authority.subscribe((next) => {
    expiry.set(next.notAfter / secondMs);
    bundle.set(next.rootBundle);
  });
  return { bundle, [Symbol.dispose]: () => subscription[Symbol.dispose]() };
}

function readyRoute(readiness: Readiness): AdminHandler {
  return () => (readiness.pending.length === 0 ? { body: "ready\n" } : { status: 503, body: `not ready, pending: ${readiness.pending.join(", ")}\n` });
}

/** A machine without IPv6 cannot bind its wildcard. */
function anyAddress(): string {
  const families = Object.values(networkInterfaces()).flatMap((addresses) => addresses?.map(({ family }) => family) ?? []);
  return families.includes("IPv6") ? "::" : "0.0.0.0";
}

function count(collection: Collection<unknown>): number {
  return [...collection.entries()].length;
}
